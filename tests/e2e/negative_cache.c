/* Makes a process see files as an NFS client does that caches missing names: after a lookup that
 * found nothing, a path below $NEGATIVE_CACHE_UNDER stays missing for $NEGATIVE_CACHE_S seconds,
 * unless this process creates it. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_ENTRIES 4096
static struct { char *path; double since; } missing[MAX_ENTRIES];
static int num_missing;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* The absolute path if it is cached at all, else NULL. */
static const char *cached(const char *path, char *buffer) {
    const char *under = getenv("NEGATIVE_CACHE_UNDER");
    if (!under || !path) return NULL;
    if (path[0] == '/') {
        snprintf(buffer, 4096, "%s", path);
    } else {
        char here[2048];
        if (!getcwd(here, sizeof here)) return NULL;
        snprintf(buffer, 4096, "%s/%s", here, path);
    }
    return strncmp(buffer, under, strlen(under)) == 0 ? buffer : NULL;
}

static int is_missing(const char *path) {
    const char *ttl = getenv("NEGATIVE_CACHE_S");
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < num_missing; i++)
        if (!strcmp(missing[i].path, path)) found = now() - missing[i].since < atof(ttl ? ttl : "30");
    pthread_mutex_unlock(&lock);
    if (found) errno = ENOENT;
    return found;
}

static void forget(const char *path) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < num_missing; i++)
        if (!strcmp(missing[i].path, path)) {
            free(missing[i].path);
            missing[i] = missing[--num_missing];
            break;
        }
    pthread_mutex_unlock(&lock);
}

static void note(const char *path, int result) {
    int error = errno;
    forget(path);
    pthread_mutex_lock(&lock);
    if (result < 0 && error == ENOENT && num_missing < MAX_ENTRIES) {
        missing[num_missing].path = strdup(path);
        missing[num_missing++].since = now();
    }
    pthread_mutex_unlock(&lock);
    errno = error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define LOOKUP(name, path, call)                          \
    char buffer[4096];                                    \
    const char *key = cached(path, buffer);               \
    if (key && is_missing(key)) return -1;                \
    int result = call;                                    \
    if (key) note(key, result);                           \
    return result;

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;   \
        va_end(rest);                                                               \
        char place[4096];                                                           \
        const char *created = flags & O_CREAT ? cached(path, place) : NULL;         \
        if (created) forget(created);                                               \
        LOOKUP(name, path, REAL(name)(path, flags, mode))                           \
    }
OPEN(open)
OPEN(open64)

#define STAT(name, type) \
    int name(const char *path, struct type *at) { LOOKUP(name, path, REAL(name)(path, at)) }
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)

int access(const char *path, int mode) { LOOKUP(access, path, REAL(access)(path, mode)) }

int rename(const char *from, const char *to) {
    char buffer[4096];
    const char *key = cached(to, buffer);
    int result = REAL(rename)(from, to);
    if (key && result == 0) forget(key);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    char buffer[4096];
    const char *key = cached(path, buffer);
    int result = REAL(mkdir)(path, mode);
    if (key && result == 0) forget(key);
    return result;
}
