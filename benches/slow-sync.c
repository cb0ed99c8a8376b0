/* A disk whose sync takes longer, for LD_PRELOAD: fsync and fdatasync wait $SLOW_SYNC_US microseconds more. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static useconds_t delay;

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("SLOW_SYNC_US");
    delay = text ? (useconds_t)strtoul(text, NULL, 10) : 2000;
}

static int slowly(const char *name, int fd) {
    usleep(delay);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return slowly("fsync", fd); }

int fdatasync(int fd) { return slowly("fdatasync", fd); }
