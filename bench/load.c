/*
 * load: sends numbered messages to an LMTP or SMTP server over N sessions at once.
 *
 *     load lmtp|smtp 127.0.0.1:PORT MESSAGE-FILE [OPTION VALUE]...
 *
 *     -s N   sessions at the same time (10)
 *     -c N   messages on one connection, 0 = all (0)
 *     -r N   recipients of each message (1)
 *     -n N   begin at most N messages (no limit)
 *     -t S   begin no message after S seconds (1); what has begun is finished
 *     -w S   give up S seconds after that (30)
 *     -f N   number of the first message (0)
 *     -p 1   pipeline MAIL, RCPT and DATA when the server offers it (0)
 *
 * One epoll thread. The result is one JSON object on stdout:
 *
 *     ok          every recipient got its 250 after the dot
 *     refused     answered, but not so
 *     broken      the connection failed before the last reply: nobody knows
 *     unfinished  no last reply when time was up
 *     next        the first number not used
 *     seconds, cpu_seconds (of this process), connections
 *     p50_ms, p99_ms, max_ms   of the ok ones: from MAIL, or from connect() for the first message of a
 *                 connection, to the last reply
 *     replies     each different unwelcome reply or error, with its count (at most 8)
 *
 * Exit status 0 when it could run, whatever became of the messages.
 */
#include "wire.h"

#include <sys/resource.h>

#define HELLO_NAME "bench.lists.test"
#define DOMAIN "lists.test"
#define KINDS 8

/* What the next reply answers. */
enum step { GREETING, HELLO, MAIL, RCPT, DATA, DOT, RESET, QUIT };

struct session {
    int fd; /* -1: this session has ended */
    enum step step;
    bool pipelining, in_message, spoiled; /* spoiled: some reply about this message was unwelcome */
    unsigned on_connection;               /* messages begun on it */
    unsigned asked, accepted, answered;   /* recipients: sent, taken at RCPT, answered after the dot */
    uint64_t sequence;
    double connected, begun;
    char line[1024];
    size_t line_length;
    struct buffer out;
};

static bool lmtp, allow_pipelining;
static struct sockaddr_in server;
static unsigned sessions = 10, per_connection, recipients = 1;
static uint64_t limit = UINT64_MAX, first;
static double begin_for = 1, wait_for = 30;

static int epoll;
static unsigned active;
static double started;
static char *message;
static size_t message_size;

static uint64_t begun, ok, refused, broken, connections;
static float *latency; /* milliseconds of the ok ones, in order of arrival */
static size_t latency_room;

static struct {
    char text[120];
    uint64_t count;
} unwelcome[KINDS];

/* JSON-safe, because the text is printed inside quotes as it is. */
static void note(struct session *s, const char *reply)
{
    char text[sizeof unwelcome[0].text];
    size_t n = 0;
    for (; reply[n] && reply[n] != '\r' && reply[n] != '\n' && n < sizeof text - 1; n++)
        text[n] = (reply[n] == '"' || reply[n] == '\\' || (unsigned char)reply[n] < ' ' ||
                   (unsigned char)reply[n] > '~') ? '?' : reply[n];
    text[n] = '\0';
    s->spoiled = true;
    for (int i = 0; i < KINDS; i++) {
        if (!unwelcome[i].count)
            strcpy(unwelcome[i].text, text);
        if (!strcmp(unwelcome[i].text, text)) {
            unwelcome[i].count++;
            return;
        }
    }
}

static void succeed(const struct session *s)
{
    if (ok == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 4096;
        latency = realloc(latency, latency_room * sizeof *latency);
        if (!latency)
            die("realloc");
    }
    latency[ok++] = (float)((now() - s->begun) * 1e3);
}

static bool may_begin(void)
{
    return begun < limit && now() - started < begin_for;
}

static void open_connection(struct session *s)
{
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0)
        die("socket");
    prepare_socket(s->fd);
    s->step = GREETING;
    s->pipelining = s->in_message = s->spoiled = false;
    s->on_connection = 0;
    s->line_length = 0;
    s->out = (struct buffer){.data = s->out.data, .capacity = s->out.capacity};
    s->connected = now();
    connections++;
    watch(epoll, EPOLL_CTL_ADD, s->fd, s, EPOLLIN);
    if (connect(s->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        die("connect");
}

static void reopen_or_end(struct session *s)
{
    close(s->fd);
    s->fd = -1;
    if (may_begin())
        open_connection(s);
    else
        active--;
}

static void quit(struct session *s)
{
    s->step = QUIT;
    append_text(&s->out, "QUIT\r\n");
}

static void send_recipient(struct session *s)
{
    char line[80];
    snprintf(line, sizeof line, "RCPT TO:<list%u@" DOMAIN ">\r\n", s->asked++);
    append_text(&s->out, line);
}

static void begin_message(struct session *s)
{
    if (!may_begin() || (per_connection && s->on_connection >= per_connection)) {
        quit(s);
        return;
    }
    s->sequence = first + begun++;
    s->begun = s->on_connection++ ? now() : s->connected;
    s->in_message = true;
    s->spoiled = false;
    s->asked = s->accepted = s->answered = 0;
    s->step = MAIL;
    append_text(&s->out, "MAIL FROM:<sender@example.org>\r\n");
    if (s->pipelining) {
        while (s->asked < recipients)
            send_recipient(s);
        append_text(&s->out, "DATA\r\n");
    }
}

/* Settle the message; go on with `RSET` first where the dialogue was left half-way. */
static void end_message(struct session *s, bool reset)
{
    s->in_message = false;
    if (s->spoiled)
        refused++;
    else
        succeed(s);
    if (reset) {
        s->step = RESET;
        append_text(&s->out, "RSET\r\n");
    } else {
        begin_message(s);
    }
}

static void send_message(struct session *s)
{
    char header[64];
    snprintf(header, sizeof header, SEQUENCE_HEADER "%08llu\r\n", (unsigned long long)s->sequence);
    s->step = DOT;
    append_text(&s->out, header);
    append(&s->out, message, message_size);
    append_text(&s->out, ".\r\n");
}

/* No service on this connection. It counts as one refused message, so that refusals show. */
static void turned_away(struct session *s, const char *line)
{
    note(s, line);
    begun++;
    refused++;
    quit(s);
}

static void after_recipient(struct session *s, int code, const char *line)
{
    if (code / 100 == 2)
        s->accepted++;
    else
        note(s, line);
    if (++s->answered < recipients) {
        if (!s->pipelining)
            send_recipient(s);
        return;
    }
    s->answered = 0;
    s->step = DATA;
    if (s->pipelining)
        return;
    if (s->accepted)
        append_text(&s->out, "DATA\r\n");
    else
        end_message(s, true);
}

/* One whole reply: `line` is its last line. */
static void on_reply(struct session *s, const char *line)
{
    int code = atoi(line);
    switch (s->step) {
    case GREETING:
        if (code != 220) {
            turned_away(s, line);
            return;
        }
        s->step = HELLO;
        append_text(&s->out, lmtp ? "LHLO " HELLO_NAME "\r\n" : "EHLO " HELLO_NAME "\r\n");
        return;
    case HELLO:
        if (code == 250)
            begin_message(s);
        else
            turned_away(s, line);
        return;
    case MAIL:
        s->step = RCPT;
        if (code != 250)
            note(s, line);
        if (s->pipelining)
            return;
        if (s->spoiled)
            end_message(s, true);
        else
            send_recipient(s);
        return;
    case RCPT:
        after_recipient(s, code, line);
        return;
    case DATA:
        if (code == 354) {
            send_message(s);
        } else {
            note(s, line);
            end_message(s, true);
        }
        return;
    case DOT:
        if (code != 250)
            note(s, line);
        /* RFC 2033 §4.2: a reply for each recipient that was accepted */
        if (!lmtp || ++s->answered >= s->accepted)
            end_message(s, false);
        return;
    case RESET:
        begin_message(s);
        return;
    case QUIT:
        reopen_or_end(s);
        return;
    }
}

static void on_line(struct session *s)
{
    bool last = s->line_length < 4 || s->line[3] != '-';
    if (s->step == HELLO && s->line_length > 4 && !strncasecmp(s->line + 4, "PIPELINING", 10))
        s->pipelining = allow_pipelining;
    s->line_length = 0;
    if (last)
        on_reply(s, s->line);
}

static void lost(struct session *s, const char *why)
{
    if (s->in_message) {
        note(s, why);
        broken++;
    } else if (s->step != QUIT) {
        note(s, why);
        begun++;
        broken++;
    }
    reopen_or_end(s);
}

static void serve(struct session *s)
{
    char chunk[8192];
    int fd = s->fd;
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        lost(s, n ? strerror(errno) : "connection closed by the server");
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (s->line_length < sizeof s->line - 1)
            s->line[s->line_length++] = chunk[i];
        if (chunk[i] != '\n')
            continue;
        s->line[s->line_length] = '\0';
        unsigned long long connection = connections;
        on_line(s);
        if (s->fd < 0 || connection != connections)
            return; /* ended, or it is another connection now */
    }
    if (!push(epoll, s->fd, s, &s->out))
        lost(s, strerror(errno));
}

static void run(void)
{
    started = now();
    struct session *all = calloc(sessions, sizeof *all);
    if (!all)
        die("calloc");
    active = sessions;
    for (unsigned i = 0; i < sessions; i++)
        open_connection(&all[i]);
    while (active && now() - started < begin_for + wait_for) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, 100);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++)
            serve(events[i].data.ptr);
    }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(double share)
{
    return ok ? latency[(size_t)((double)(ok - 1) * share)] : 0;
}

static void report(double seconds)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    qsort(latency, ok, sizeof *latency, by_value);
    printf("{\"ok\":%llu,\"refused\":%llu,\"broken\":%llu,\"unfinished\":%llu,\"next\":%llu,\"connections\":%llu,",
           (unsigned long long)ok, (unsigned long long)refused, (unsigned long long)broken,
           (unsigned long long)(begun - ok - refused - broken), (unsigned long long)(first + begun),
           (unsigned long long)connections);
    printf("\"seconds\":%.6f,\"cpu_seconds\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,\"replies\":{",
           seconds, cpu, percentile(0.5), percentile(0.99), percentile(1));
    for (int i = 0; i < KINDS && unwelcome[i].count; i++)
        printf("%s\"%s\":%llu", i ? "," : "", unwelcome[i].text, (unsigned long long)unwelcome[i].count);
    printf("}}\n");
}

/* The message as it goes over the wire: CRLF line ends, dots doubled (RFC 5321 §4.5.2), without the last dot. */
static void read_message(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    struct buffer wire = {0};
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    while ((n = getline(&line, &room, file)) > 0) {
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        if (n && line[0] == '.')
            append(&wire, ".", 1);
        append(&wire, line, (size_t)n);
        append(&wire, "\r\n", 2);
    }
    free(line);
    fclose(file);
    message = wire.data;
    message_size = wire.length;
}

static bool option(const char *name, const char *value)
{
    if (strlen(name) != 2 || name[0] != '-')
        return false;
    switch (name[1]) {
    case 's': sessions = (unsigned)strtoul(value, NULL, 10); return sessions > 0;
    case 'c': per_connection = (unsigned)strtoul(value, NULL, 10); return true;
    case 'r': recipients = (unsigned)strtoul(value, NULL, 10); return recipients > 0;
    case 'n': limit = strtoull(value, NULL, 10); return true;
    case 't': begin_for = strtod(value, NULL); return true;
    case 'w': wait_for = strtod(value, NULL); return true;
    case 'f': first = strtoull(value, NULL, 10); return true;
    case 'p': allow_pipelining = atoi(value) != 0; return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    bool usable = argc >= 4 && argc % 2 == 0 && (!strcmp(argv[1], "lmtp") || !strcmp(argv[1], "smtp"));
    for (int i = 4; usable && i < argc; i += 2)
        usable = option(argv[i], argv[i + 1]);
    if (!usable) {
        fprintf(stderr, "usage: load lmtp|smtp 127.0.0.1:PORT MESSAGE-FILE [-s|-c|-r|-n|-t|-w|-f|-p NUMBER]...\n");
        return 2;
    }
    be_a_good_child();
    lmtp = !strcmp(argv[1], "lmtp");
    server = loopback(argv[2]);
    read_message(argv[3]);
    epoll = epoll_create1(0);
    if (epoll < 0)
        die("epoll_create1");
    run();
    report(now() - started);
    return 0;
}
