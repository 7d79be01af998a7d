/*
 * What load.c and sink.c share: the clock, loopback addresses, non-blocking
 * sockets and a buffer that grows.
 *
 * Both are tools of a benchmark: what they cannot handle (no memory, no socket)
 * ends them with a line on stderr and exit status 2.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The header that numbers a message; the number is decimal, at most 19 digits. */
#define SEQUENCE_HEADER "X-Bench-Sequence: "

static inline void die(const char *what)
{
    perror(what);
    exit(2);
}

/* Seconds of the monotonic clock: the same that Python's time.monotonic() reads. */
static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* "127.x.y.z:port" as an address. Anything beyond loopback is refused: load is never sent elsewhere. */
static inline struct sockaddr_in loopback(const char *text)
{
    char host[64];
    struct sockaddr_in address = {.sin_family = AF_INET};
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host) {
        fprintf(stderr, "%s: expected HOST:PORT\n", text);
        exit(2);
    }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    address.sin_port = htons((uint16_t)atoi(colon + 1));
    if (!inet_aton(host, &address.sin_addr) || ntohl(address.sin_addr.s_addr) >> 24 != 127) {
        fprintf(stderr, "%s: only 127.0.0.0/8\n", text);
        exit(2);
    }
    return address;
}

/* TCP_NODELAY: a dialogue of short lines would otherwise be measured in delayed acknowledgements. */
static inline void prepare_socket(int fd)
{
    int on = 1;
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        die("fcntl");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Octets that wait to be written; `sent` of `length` are gone already.
   `watched`: epoll has been asked to tell when there is room again. */
struct buffer {
    char *data;
    size_t length, sent, capacity;
    bool watched;
};

static inline void append(struct buffer *b, const char *data, size_t size)
{
    if (b->length + size > b->capacity) {
        b->capacity = (b->length + size) * 2;
        b->data = realloc(b->data, b->capacity);
        if (!b->data)
            die("realloc");
    }
    memcpy(b->data + b->length, data, size);
    b->length += size;
}

static inline void append_text(struct buffer *b, const char *text)
{
    append(b, text, strlen(text));
}

static inline void watch(int epoll, int operation, int fd, void *owner, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = owner};
    if (epoll_ctl(epoll, operation, fd, &event) < 0)
        die("epoll_ctl");
}

/* Write what the socket takes, and wake for room to write only while something waits.
   False: the connection is gone. */
static inline bool push(int epoll, int fd, void *owner, struct buffer *b)
{
    while (b->sent < b->length) {
        ssize_t n = write(fd, b->data + b->sent, b->length - b->sent);
        if (n >= 0)
            b->sent += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return false;
    }
    if (b->sent == b->length)
        b->sent = b->length = 0;
    if (b->watched != (b->length > 0)) {
        b->watched = b->length > 0;
        watch(epoll, EPOLL_CTL_MOD, fd, owner, EPOLLIN | (b->watched ? EPOLLOUT : 0));
    }
    return true;
}

/* End with the driver, whatever happens to it; and see a closed peer as an error of write(). */
static inline void be_a_good_child(void)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
}

#endif
