/* The physical limit: as little as a server can do for a fan-out.
 *
 *     limit PORT
 *
 * Answers every connection to 127.0.0.1:PORT with the head of an event stream. Each line of standard input is then
 * the data of one broadcast: one frame is made of it and handed to send() for each connection, in one loop.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONNECTIONS 65536
#define MAX_LINE 8192

static const char HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache, no-transform\r\n"
    "X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n";

static int listeners[MAX_CONNECTIONS];
static int count;
static unsigned long broadcasts;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void broadcast(const char *data, size_t length) {
    char text[MAX_LINE + 256], frame[MAX_LINE + 512];
    int size = snprintf(text, sizeof text, "id: AAAAAAAAAAAAA-%lu\nevent: tick\ndata: %.*s\n\n", ++broadcasts,
                        (int)length, data);
    int total = snprintf(frame, sizeof frame, "%x\r\n%s\r\n", size, text);
    for (int i = 0; i < count; i++)
        if (listeners[i] >= 0 && send(listeners[i], frame, total, MSG_NOSIGNAL) != total) {
            close(listeners[i]);
            listeners[i] = -1;
        }
}

static void take_lines(void) {
    static char held[MAX_LINE];
    static size_t have;
    ssize_t got = read(0, held + have, sizeof held - have);
    if (got <= 0)
        exit(0);
    have += got;
    char *start = held, *end;
    while ((end = memchr(start, '\n', held + have - start))) {
        broadcast(start, end - start);
        start = end + 1;
    }
    have -= start - held;
    memmove(held, start, have);
}

static void take_connections(int server, int events) {
    int fd;
    while ((fd = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(events, EPOLL_CTL_ADD, fd, &event))
            die("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

static void take_request(int fd, int events) {
    char request[MAX_LINE];
    ssize_t got = recv(fd, request, sizeof request, 0); /* the load client sends its request in one segment */
    epoll_ctl(events, EPOLL_CTL_DEL, fd, NULL);
    if (got <= 0 || count == MAX_CONNECTIONS || send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) < 0)
        close(fd);
    else
        listeners[count++] = fd;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return fprintf(stderr, "usage: limit PORT\n"), 2;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 4096))
        die("listen");
    int events = epoll_create1(EPOLL_CLOEXEC);
    for (int fd = 0; fd <= server; fd += server) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(events, EPOLL_CTL_ADD, fd, &event))
            die("epoll_ctl");
    }
    for (;;) {
        struct epoll_event ready[256];
        int number = epoll_wait(events, ready, 256, -1);
        for (int i = 0; i < number; i++)
            if (ready[i].data.fd == 0)
                take_lines();
            else if (ready[i].data.fd == server)
                take_connections(server, events);
            else
                take_request(ready[i].data.fd, events);
    }
}
