/* A provider that is never the bottleneck: one thread, epoll, fixed replies in both wire formats.

   cc -O2 -o upstream upstream.c && ./upstream PORT PACE_MS

   POST .../messages gets Anthropic's reply, anything else OpenAI's; a body with "stream":true gets 24 events, one every
   PACE_MS (0: all at once). Errors of the system end the program. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { MAX_FD = 4096, ROOM = 1 << 17, EVENTS = 24 };

typedef struct {
  char *in;
  size_t used;
  int frame; /* the next frame to send, -1 when none */
  int anthropic;
} Connection;

static Connection connections[MAX_FD];
static int pace_ms;

static const char ANTHROPIC[] =
    "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-haiku-4-5\",\"content\":[{\"type\":"
    "\"text\",\"text\":\"The second lamp needs less care, for its housing is sealed.\"}],\"stop_reason\":\"end_turn\","
    "\"stop_sequence\":null,\"usage\":{\"input_tokens\":220,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\""
    ":0,\"output_tokens\":16}}";
static const char OPENAI[] =
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1795348800,\"model\":\"gpt-6-luna\",\"choices\":[{"
    "\"index\":0,\"finish_reason\":\"stop\",\"logprobs\":null,\"message\":{\"role\":\"assistant\",\"content\":\"The second "
    "lamp needs less care, for its housing is sealed.\",\"refusal\":null}}],\"usage\":{\"prompt_tokens\":220,"
    "\"completion_tokens\":16,\"total_tokens\":236,\"prompt_tokens_details\":{\"cached_tokens\":0}}}";

static void die(const char *what) { perror(what); exit(1); }

static int frame(int anthropic, int number, char *out, size_t room) {
  char data[512];
  if (anthropic) {
    if (number == 0)
      snprintf(data, sizeof data,
               "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\","
               "\"role\":\"assistant\",\"model\":\"claude-haiku-4-5\",\"content\":[],\"stop_reason\":null,"
               "\"stop_sequence\":null,\"usage\":{\"input_tokens\":220,\"output_tokens\":1}}}\n\n");
    else if (number == 1)
      snprintf(data, sizeof data,
               "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
               "\"text\",\"text\":\"\"}}\n\n");
    else if (number == EVENTS - 3)
      snprintf(data, sizeof data, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
    else if (number == EVENTS - 2)
      snprintf(data, sizeof data,
               "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
               "\"stop_sequence\":null},\"usage\":{\"output_tokens\":19}}\n\n");
    else if (number == EVENTS - 1)
      snprintf(data, sizeof data, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    else
      snprintf(data, sizeof data,
               "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
               "\"text_delta\",\"text\":\" word %d\"}}\n\n",
               number);
  } else {
    const char *head = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795348800,\"model\":"
                       "\"gpt-6-luna\",\"choices\":";
    if (number == EVENTS - 1)
      snprintf(data, sizeof data, "data: [DONE]\n\n");
    else if (number == EVENTS - 2)
      snprintf(data, sizeof data, "%s[],\"usage\":{\"prompt_tokens\":220,\"completion_tokens\":20,\"total_tokens\":240}}\n\n",
               head);
    else
      snprintf(data, sizeof data,
               "%s[{\"index\":0,\"delta\":{\"content\":\" word %d\"},\"finish_reason\":%s}],\"usage\":null}\n\n", head,
               number, number == EVENTS - 3 ? "\"stop\"" : "null");
  }
  return snprintf(out, room, "%zx\r\n%s\r\n%s", strlen(data), data, number == EVENTS - 1 ? "0\r\n\r\n" : "");
}

static void send_all(int fd, const char *bytes, size_t size) {
  if (send(fd, bytes, size, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET && errno != EAGAIN) die("send");
}

static void answer(int fd, Connection *c, const char *body, size_t size) {
  char out[32768];
  int n;
  if (memmem(body, size, "\"stream\":true", 13) || memmem(body, size, "\"stream\": true", 14)) {
    n = snprintf(out, sizeof out,
                 "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n");
    for (c->frame = 0; c->frame < EVENTS && (pace_ms == 0 || c->frame == 0); c->frame++)
      n += frame(c->anthropic, c->frame, out + n, sizeof out - n);
    if (c->frame == EVENTS) c->frame = -1;
  } else {
    const char *reply = c->anthropic ? ANTHROPIC : OPENAI;
    n = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                 strlen(reply), reply);
  }
  send_all(fd, out, n);
}

static void take(int fd, Connection *c) {
  for (;;) {
    char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
    if (!end) return;
    *end = 0;
    char *length = strcasestr(c->in, "content-length:");
    size_t size = length ? strtoul(length + 15, NULL, 10) : 0, whole = end + 4 - c->in + size;
    char *line_end = memchr(c->in, '\r', end - c->in);
    c->anthropic = memmem(c->in, line_end ? line_end - c->in : end - c->in, "/messages", 9) != NULL;
    *end = '\r';
    if (whole > ROOM) { fprintf(stderr, "request of %zu bytes\n", whole); exit(1); }
    if (c->used < whole) return;
    answer(fd, c, end + 4, size);
    memmove(c->in, c->in + whole, c->used - whole);
    c->used -= whole;
  }
}

static void drop(int fd) {
  close(fd);
  connections[fd].frame = -1;
  connections[fd].used = 0;
}

int main(int argc, char **argv) {
  if (argc != 3) { fprintf(stderr, "usage: upstream PORT PACE_MS\n"); return 2; }
  pace_ms = atoi(argv[2]);
  int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), loop = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) die("listen");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
  epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
  if (pace_ms) {
    struct itimerspec every = {{0, pace_ms * 1000000L}, {0, pace_ms * 1000000L}};
    timerfd_settime(timer, 0, &every, NULL);
    event.data.fd = timer;
    epoll_ctl(loop, EPOLL_CTL_ADD, timer, &event);
  }
  for (int i = 0; i < MAX_FD; i++) connections[i].frame = -1;
  for (;;) {
    int n = epoll_wait(loop, ready, 256, -1);
    for (int i = 0; i < n; i++) {
      int fd = ready[i].data.fd;
      if (fd == listener) {
        int fresh = accept(listener, NULL, NULL);
        if (fresh < 0 || fresh >= MAX_FD) die("accept");
        setsockopt(fresh, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (!connections[fresh].in && !(connections[fresh].in = malloc(ROOM + 1))) die("malloc");
        event.data.fd = fresh;
        epoll_ctl(loop, EPOLL_CTL_ADD, fresh, &event);
      } else if (fd == timer) {
        unsigned long long ticks;
        if (read(timer, &ticks, sizeof ticks) < 0) die("timer");
        char out[1024];
        for (int open = 0; open < MAX_FD; open++) {
          Connection *c = &connections[open];
          if (c->frame < 0) continue;
          send_all(open, out, frame(c->anthropic, c->frame, out, sizeof out));
          if (++c->frame == EVENTS) c->frame = -1;
        }
      } else {
        Connection *c = &connections[fd];
        ssize_t got = recv(fd, c->in + c->used, ROOM - c->used, 0);
        if (got <= 0) { drop(fd); continue; }
        c->used += got;
        c->in[c->used] = 0;
        take(fd, c);
      }
    }
  }
}
