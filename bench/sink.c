/*
 * sink: an LMTP or SMTP server that takes everything, keeps nothing and counts.
 *
 *     sink lmtp|smtp 127.0.0.1:PORT        (port 0: any free one)
 *
 * One epoll thread. It prints "listening PORT" when it is ready. Each message is known
 * by its X-Bench-Sequence header, so the sink can tell how many *different* messages
 * arrived and how many arrived again. In LMTP the final dot gets one reply for each
 * accepted recipient (RFC 2033 §4.2), in SMTP one.
 *
 * The command XCOUNT, of our own, answers with the counts as JSON on one 250 line.
 */
#include "wire.h"

#include <inttypes.h>

/* Sequence numbers below this are told apart: a bit each, 8 MiB, touched only where used. */
#define SEQUENCES ((uint64_t)1 << 26)

/* Commands are short; of a line of the message only the start matters. */
#define LINE_HEAD 512

#define HELLO \
    "250-sink\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n" \
    "250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n"

struct connection {
    int fd;
    bool in_data, in_header, numbered, closing;
    unsigned recipients;
    uint64_t sequence;
    char line[LINE_HEAD + 1];
    size_t line_length; /* octets of the current line that were kept */
    struct buffer out;
};

static bool lmtp;
static int epoll;
static unsigned char *seen;
static uint64_t messages, distinct, duplicates, unnumbered, recipients, connections, open_now, open_peak;
static double first_arrival, last_arrival;

static void count_message(struct connection *c)
{
    last_arrival = now();
    if (!messages++)
        first_arrival = last_arrival;
    if (!c->numbered || c->sequence >= SEQUENCES) {
        unnumbered++;
        return;
    }
    unsigned char bit = (unsigned char)(1u << (c->sequence & 7));
    unsigned char *cell = &seen[c->sequence >> 3];
    if (*cell & bit)
        duplicates++;
    else
        distinct++;
    *cell |= bit;
}

static void report(struct connection *c)
{
    char text[512];
    snprintf(text, sizeof text,
             "250 {\"messages\":%" PRIu64 ",\"distinct\":%" PRIu64 ",\"duplicates\":%" PRIu64
             ",\"unnumbered\":%" PRIu64 ",\"recipients\":%" PRIu64 ",\"connections\":%" PRIu64
             ",\"open_peak\":%" PRIu64 ",\"first_arrival\":%.6f,\"last_arrival\":%.6f}\r\n",
             messages, distinct, duplicates, unnumbered, recipients, connections, open_peak, first_arrival,
             last_arrival);
    append_text(&c->out, text);
}

static bool is(const struct connection *c, const char *verb)
{
    return !strncasecmp(c->line, verb, strlen(verb));
}

static void command(struct connection *c)
{
    if (is(c, "LHLO") || is(c, "EHLO")) {
        append_text(&c->out, HELLO);
    } else if (is(c, "MAIL")) {
        c->recipients = 0;
        append_text(&c->out, "250 2.1.0 Ok\r\n");
    } else if (is(c, "RCPT")) {
        c->recipients++;
        recipients++;
        append_text(&c->out, "250 2.1.5 Ok\r\n");
    } else if (is(c, "DATA") && !c->recipients) {
        append_text(&c->out, "503 5.5.1 No recipient\r\n");
    } else if (is(c, "DATA")) {
        c->in_data = c->in_header = true;
        c->numbered = false;
        append_text(&c->out, "354 Go on\r\n");
    } else if (is(c, "XCOUNT")) {
        report(c);
    } else if (is(c, "QUIT")) {
        c->closing = true;
        append_text(&c->out, "221 2.0.0 Bye\r\n");
    } else {
        append_text(&c->out, "250 2.0.0 Ok\r\n");
    }
}

static void message_line(struct connection *c)
{
    if (!strcmp(c->line, ".\r\n")) {
        count_message(c);
        for (unsigned i = 0; i < (lmtp ? c->recipients : 1); i++)
            append_text(&c->out, "250 2.0.0 Ok\r\n");
        c->in_data = false;
        c->recipients = 0;
    } else if (c->in_header && !strcmp(c->line, "\r\n")) {
        c->in_header = false;
    } else if (c->in_header && is(c, SEQUENCE_HEADER)) {
        c->sequence = strtoull(c->line + strlen(SEQUENCE_HEADER), NULL, 10);
        c->numbered = true;
    }
}

static void take(struct connection *c, const char *data, size_t size)
{
    const char *end = data + size;
    while (data < end && !c->closing) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        const char *next = newline ? newline + 1 : end;
        size_t keep = (size_t)(next - data);
        if (keep > LINE_HEAD - c->line_length)
            keep = LINE_HEAD - c->line_length;
        memcpy(c->line + c->line_length, data, keep);
        c->line_length += keep;
        data = next;
        if (!newline)
            return;
        c->line[c->line_length] = '\0';
        c->line_length = 0;
        if (c->in_data)
            message_line(c);
        else
            command(c);
    }
}

static void drop(struct connection *c)
{
    close(c->fd);
    free(c->out.data);
    free(c);
    open_now--;
}

static void greet(int listener)
{
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno == EAGAIN)
                return;
            die("accept");
        }
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            die("calloc");
        c->fd = fd;
        prepare_socket(fd);
        connections++;
        if (++open_now > open_peak)
            open_peak = open_now;
        watch(epoll, EPOLL_CTL_ADD, fd, c, EPOLLIN);
        append_text(&c->out, lmtp ? "220 sink LMTP\r\n" : "220 sink ESMTP\r\n");
        if (!push(epoll, fd, c, &c->out))
            drop(c);
    }
}

static void serve(struct connection *c)
{
    static char chunk[1 << 18];
    ssize_t n = read(c->fd, chunk, sizeof chunk);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        n = 0; /* woken because there is room to write again */
    else if (n <= 0) {
        drop(c);
        return;
    }
    take(c, chunk, (size_t)n);
    if (!push(epoll, c->fd, c, &c->out) || (c->closing && !c->out.length))
        drop(c);
}

static int listen_at(struct sockaddr_in address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    socklen_t size = sizeof address;
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("getsockname");
    prepare_socket(fd);
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[1], "lmtp") && strcmp(argv[1], "smtp"))) {
        fprintf(stderr, "usage: sink lmtp|smtp 127.0.0.1:PORT\n");
        return 2;
    }
    be_a_good_child();
    lmtp = !strcmp(argv[1], "lmtp");
    seen = calloc(1, SEQUENCES / 8);
    epoll = epoll_create1(0);
    if (!seen || epoll < 0)
        die("set-up");
    int listener = listen_at(loopback(argv[2]));
    watch(epoll, EPOLL_CTL_ADD, listener, NULL, EPOLLIN);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr);
            else
                greet(listener);
        }
    }
}
