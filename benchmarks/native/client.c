/* The load client: holds many event streams in one thread, and reads them as cheaply as it can.
 *
 *     client PORT [ready TEXT] [marker TEXT | text TEXT]
 *
 * A stream counts as open when `ready` (the end of the response head unless given) was read from it. In all that
 * follows, each `marker` (`@T=` unless given) is one event; the decimal number after it is the nanosecond of
 * CLOCK_MONOTONIC at which the event was published, or just a number where `record` is on. With `text` in place of
 * `marker` the number is that of the bytes up to the next quotation mark.
 *
 * Commands, one a line, each answered by one line of JSON when it is done:
 *     open COUNT WINDOW PATH   opens COUNT more streams, WINDOW at a time; %d in PATH is the stream's number (churn: its turn)
 *     churn COUNT WINDOW PATH  the same, but each is closed as soon as it is open
 *     close                    closes all streams
 *     reset                    forgets what was counted
 *     wait COUNT SECONDS       until COUNT events came since the last reset, or SECONDS passed; answers the account
 *     record COUNT             from now on keeps stream, number and time of up to COUNT events
 *     dump FILE                writes them there: three little-endian 64-bit numbers each
 *     tokens FILE              from now on the streams that are opened bring its lines as bearer tokens, one each in turn
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_STREAMS 65536
#define MAX_HEAD 4096
#define CARRY 64
#define COMMANDS UINT32_MAX

typedef struct {
    int fd; /* -1: not in use */
    int open;
    char *head; /* what came before it was open */
    int head_length;
    int carry_length;
    char carry[CARRY]; /* the start of a marker whose end has not come yet */
    uint32_t events;
    uint32_t number; /* in the order of the command that opened it */
} Stream;

typedef struct {
    uint64_t stream, number, at;
} Record;

static Stream streams[MAX_STREAMS];
static uint32_t used;
static int poller, port;
static const char *ready_text = "\r\n\r\n", *marker = "@T=";
static size_t marker_length;
static int measuring_text;

static uint64_t delivered, bytes, lost, broken, refused;
static uint32_t *latencies; /* microseconds */
static size_t latencies_room, latencies_used;
static Record *records;
static size_t records_room, records_used;
static char refusal[80];
static char **tokens;
static size_t tokens_used;

static struct { /* the command under way */
    char name[16], path[512];
    uint64_t count, window, started, done, numbers, deadline, started_at;
} now_doing;

static uint64_t nanoseconds(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + at.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void answer(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
    now_doing.name[0] = 0;
}

static int smaller(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static double quantile_ms(double share) {
    return latencies_used ? latencies[(size_t)((latencies_used - 1) * share)] / 1000.0 : 0;
}

static void answer_account(void) {
    uint32_t fewest = UINT32_MAX, most = 0, open = 0;
    for (uint32_t i = 0; i < used; i++)
        if (streams[i].fd >= 0 && streams[i].open) {
            open++;
            fewest = streams[i].events < fewest ? streams[i].events : fewest;
            most = streams[i].events > most ? streams[i].events : most;
        }
    qsort(latencies, latencies_used, sizeof *latencies, smaller);
    answer("{\"delivered\": %lu, \"bytes\": %lu, \"open\": %u, \"lost\": %lu, \"broken\": %lu, \"fewest\": %u, "
           "\"most\": %u, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"seconds\": %.3f}",
           delivered, bytes, open, lost, broken, open ? fewest : 0, most, quantile_ms(0.5), quantile_ms(0.99),
           quantile_ms(1), (nanoseconds() - now_doing.started_at) / 1e9);
}

static void count_event(uint32_t stream, uint64_t number, uint64_t at) {
    delivered++;
    streams[stream].events++;
    if (records_room) {
        if (records_used < records_room)
            records[records_used++] = (Record){stream, number, at};
        return;
    }
    if (latencies_used == latencies_room) {
        latencies_room = latencies_room ? latencies_room * 2 : 1 << 16;
        if (!(latencies = realloc(latencies, latencies_room * sizeof *latencies)))
            fail("memory");
    }
    latencies[latencies_used++] = at > number ? (at - number) / 1000 : 0;
}

/* Counts the events in `text`; gives how many bytes at its end must be seen again with what follows. */
static size_t count_events(uint32_t stream, const char *text, size_t length, uint64_t at) {
    const char *place = text, *end = text + length, *found;
    while ((found = memmem(place, end - place, marker, marker_length))) {
        const char *digit = found + marker_length;
        uint64_t number = 0;
        if (measuring_text)
            for (; digit < end && *digit != '"'; digit++)
                number++;
        else
            for (; digit < end && *digit >= '0' && *digit <= '9'; digit++)
                number = number * 10 + (*digit - '0');
        if (digit == end && end - found < CARRY)
            return end - found;
        if ((digit == found + marker_length && !measuring_text) || *digit == '\r') /* split by the sender into two chunks */
            broken++;
        else
            count_event(stream, number, at);
        place = digit;
    }
    size_t left = end - place;
    return left < marker_length - 1 ? left : marker_length - 1;
}

static void drop(uint32_t index) {
    Stream *stream = &streams[index];
    close(stream->fd);
    free(stream->head);
    *stream = (Stream){.fd = -1};
}

static void refuse(uint32_t index, const char *why, int length) {
    refused++;
    now_doing.done++;
    if (!refusal[0])
        for (int i = 0; i < length && i < (int)sizeof refusal - 1 && why[i] >= ' '; i++)
            refusal[i] = why[i] == '"' || why[i] == '\\' ? '\'' : why[i];
    drop(index);
}

/* Whether the stream is open now; what follows `ready` is counted by the caller. Gives the place after it, or 0. */
static size_t take_head(uint32_t index, const char *text, size_t length) {
    Stream *stream = &streams[index];
    if (!stream->head && !(stream->head = malloc(MAX_HEAD + 1)))
        fail("memory");
    size_t before = stream->head_length, room = MAX_HEAD - before;
    memcpy(stream->head + before, text, length < room ? length : room);
    stream->head_length += length < room ? length : room;
    stream->head[stream->head_length] = 0;
    if (stream->head_length >= 12 && memcmp(stream->head + 8, " 200", 4)) {
        refuse(index, stream->head, stream->head_length);
        return 0;
    }
    char *found = strstr(stream->head, ready_text);
    if (!found)
        return 0;
    size_t after = found + strlen(ready_text) - stream->head;
    free(stream->head);
    stream->head = NULL;
    stream->open = 1;
    now_doing.done++;
    return after > before ? after - before : 0;
}

static void take_bytes(uint32_t index) {
    static char buffer[CARRY + (1 << 18)];
    Stream *stream = &streams[index];
    size_t carried = stream->carry_length;
    memcpy(buffer, stream->carry, carried);
    ssize_t got = recv(stream->fd, buffer + carried, sizeof buffer - CARRY, 0);
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (!stream->open)
            refuse(index, got ? strerror(errno) : "closed", 40);
        else {
            lost++;
            drop(index);
        }
        return;
    }
    const char *text = buffer;
    size_t length = carried + got;
    if (!stream->open) {
        size_t after = take_head(index, text, length);
        if (stream->fd < 0 || !stream->open)
            return;
        if (!strcmp(now_doing.name, "churn")) {
            drop(index);
            return;
        }
        text += after;
        length -= after;
    }
    bytes += got;
    stream->carry_length = count_events(index, text, length, nanoseconds());
    memcpy(stream->carry, text + length - stream->carry_length, stream->carry_length);
}

static void start_stream(void) {
    uint32_t index = !strcmp(now_doing.name, "churn") ? now_doing.started % now_doing.window : used;
    while (index < used && streams[index].fd >= 0) /* churn: the first free place */
        index++;
    if (index == MAX_STREAMS)
        fail("too many streams");
    if (index >= used)
        used = index + 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0)
        fail("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (!strcmp(now_doing.name, "churn")) { /* another source address each 10,000: closed ports stay taken for a while */
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + now_doing.started / 10000 % 200);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&source, sizeof source))
            fail("bind");
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect");
    streams[index] = (Stream){.fd = fd, .number = now_doing.started};
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = index};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        fail("epoll_ctl");
    now_doing.started++;
}

static void send_request(uint32_t index) {
    char path[600], request[10240];
    const char *token = tokens_used ? tokens[streams[index].number % tokens_used] : "";
    char *place = strstr(now_doing.path, "%d");
    uint32_t number = strcmp(now_doing.name, "churn") ? index : streams[index].number;
    if (place)
        snprintf(path, sizeof path, "%.*s%u%s", (int)(place - now_doing.path), now_doing.path, number, place + 2);
    else
        snprintf(path, sizeof path, "%s", now_doing.path);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n%s%s%s\r\n", path, port,
                          *token ? "Authorization: Bearer " : "", token, *token ? "\r\n" : "");
    if (send(streams[index].fd, request, length, MSG_NOSIGNAL) != length) {
        refuse(index, strerror(errno), 40);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    epoll_ctl(poller, EPOLL_CTL_MOD, streams[index].fd, &event);
}

static void reset(void) {
    delivered = bytes = lost = broken = latencies_used = records_used = 0;
    for (uint32_t i = 0; i < used; i++)
        streams[i].events = 0;
}

static void dump(void) {
    FILE *file = fopen(now_doing.path, "wb");
    if (!file || fwrite(records, sizeof *records, records_used, file) != records_used || fclose(file))
        fail("dump");
    answer("{\"records\": %zu}", records_used);
}

/* The lines of a file; those before are gone. */
static void take_tokens(void) {
    FILE *file = fopen(now_doing.path, "r");
    char line[8300];
    if (!file)
        fail("tokens");
    for (; tokens_used; tokens_used--)
        free(tokens[tokens_used - 1]);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!(tokens = realloc(tokens, (tokens_used + 1) * sizeof *tokens)) || !(tokens[tokens_used++] = strdup(line)))
            fail("memory");
    }
    fclose(file);
    answer("{}");
}

static void begin(const char *line) {
    memset(&now_doing, 0, sizeof now_doing);
    now_doing.started_at = nanoseconds();
    refused = refusal[0] = 0;
    double seconds = 0;
    if (sscanf(line, "open %lu %lu %511s", &now_doing.count, &now_doing.window, now_doing.path) == 3)
        strcpy(now_doing.name, "open");
    else if (sscanf(line, "churn %lu %lu %511s", &now_doing.count, &now_doing.window, now_doing.path) == 3)
        strcpy(now_doing.name, "churn");
    else if (sscanf(line, "wait %lu %lf", &now_doing.count, &seconds) == 2) {
        strcpy(now_doing.name, "wait");
        now_doing.deadline = now_doing.started_at + (uint64_t)(seconds * 1e9);
    } else if (sscanf(line, "record %lu", &now_doing.count) == 1) {
        records_room = now_doing.count;
        if (!(records = realloc(records, (records_room + 1) * sizeof *records)))
            fail("memory");
        answer("{}");
    } else if (sscanf(line, "dump %511s", now_doing.path) == 1)
        dump();
    else if (sscanf(line, "tokens %511s", now_doing.path) == 1)
        take_tokens();
    else if (!strcmp(line, "reset")) {
        reset();
        answer("{}");
    } else if (!strcmp(line, "close")) {
        for (uint32_t i = 0; i < used; i++)
            if (streams[i].fd >= 0)
                drop(i);
        used = 0;
        answer("{}");
    } else
        fail(line);
}

/* Goes on with the command under way; gives how many milliseconds may pass before it wants to be asked again. */
static int go_on(void) {
    int opening = !strcmp(now_doing.name, "open"), churning = !strcmp(now_doing.name, "churn");
    if (opening || churning) {
        while (now_doing.started < now_doing.count && now_doing.started - now_doing.done < now_doing.window)
            start_stream();
        if (now_doing.done == now_doing.count)
            answer("{\"opened\": %lu, \"refused\": %lu, \"refusal\": \"%s\", \"seconds\": %.3f}",
                   now_doing.count - refused, refused, refusal, (nanoseconds() - now_doing.started_at) / 1e9);
    } else if (!strcmp(now_doing.name, "wait")) {
        uint64_t at = nanoseconds();
        if (delivered >= now_doing.count || at >= now_doing.deadline)
            answer_account();
        else
            return (now_doing.deadline - at) / 1000000 + 1;
    }
    return -1;
}

static void take_commands(void) {
    static char held[4096];
    static size_t have;
    ssize_t got = read(0, held + have, sizeof held - 1 - have);
    if (got <= 0)
        exit(0);
    have += got;
    char *end = memchr(held, '\n', have);
    if (end) { /* the next command comes after the answer to this one */
        *end = 0;
        have = 0;
        begin(held);
    }
}

int main(int argc, char **argv) {
    if (argc < 2)
        return fprintf(stderr, "usage: client PORT [ready TEXT] [marker TEXT | text TEXT]\n"), 2;
    port = atoi(argv[1]);
    for (int i = 2; i + 1 < argc; i += 2) {
        *(strcmp(argv[i], "ready") ? &marker : &ready_text) = argv[i + 1];
        measuring_text |= !strcmp(argv[i], "text");
    }
    marker_length = strlen(marker);
    for (uint32_t i = 0; i < MAX_STREAMS; i++)
        streams[i].fd = -1;
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event commands = {.events = EPOLLIN, .data.u32 = COMMANDS};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands))
        fail("epoll_ctl");
    for (;;) {
        struct epoll_event events[512];
        int number = epoll_wait(poller, events, 512, go_on());
        for (int i = 0; i < number; i++) {
            uint32_t index = events[i].data.u32;
            if (index == COMMANDS)
                take_commands();
            else if (streams[index].fd < 0)
                continue;
            else if (events[i].events & EPOLLOUT)
                send_request(index);
            else
                take_bytes(index);
        }
    }
}
