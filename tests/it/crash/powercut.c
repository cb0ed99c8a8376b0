/*
 * What a power cut leaves of a folder, for LD_PRELOAD.
 *
 * Writes to files below $POWERCUT_FROM go to the file as usual, and are remembered. fsync and
 * fdatasync put what is remembered of that file onto the "disk", the folder $POWERCUT_TO; a file is
 * there under its name only after its directory was synced, too. A process that is killed leaves
 * on the "disk" what a machine without power would have: what was synced, and, because a disk
 * writes in an order of its own, some sectors of what was not ($POWERCUT_SEED chooses them).
 *
 * A file's memory map is not seen: SQLite maps only its -shm, which it rebuilds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define FDS_MAX 4096
#define SECTOR 512

struct change {
    struct change *next;
    off_t at;
    size_t length; /* 0: the file is cut to `at` */
    unsigned char bytes[];
};

struct file {
    struct file *next;
    char name[256];
    int has_name_on_disk;
    int is_gone; /* until the directory is synced, it is still on the disk */
    struct change *first, **last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;
static struct file *of_fd[FDS_MAX];
static int is_directory[FDS_MAX];
static const char *from, *to;
static uint64_t chance;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_close)(int);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
    real_open = dlsym(RTLD_NEXT, "open");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_close = dlsym(RTLD_NEXT, "close");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    from = getenv("POWERCUT_FROM");
    to = getenv("POWERCUT_TO");
    const char *seed = getenv("POWERCUT_SEED");
    chance = seed ? strtoull(seed, NULL, 10) * 2 + 1 : 1;
}

static uint32_t draw(void) {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)(chance >> 32);
}

static void fail(const char *what) {
    fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
    abort();
}

/* Where the file is on the "disk": under its name, or hidden until its directory is synced. */
static void disk_path(const struct file *file, char *path) {
    const char *hidden = file->has_name_on_disk ? "" : ".hidden";
    snprintf(path, PATH_MAX, "%s/%s%s", to, file->name, hidden);
}

static int open_disk(const struct file *file) {
    char path[PATH_MAX];
    disk_path(file, path);
    int fd = real_open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) fail(path);
    return fd;
}

static void put(int disk, const unsigned char *bytes, size_t length, off_t at) {
    while (length > 0) {
        ssize_t n = real_pwrite(disk, bytes, length, at);
        if (n <= 0) fail("pwrite");
        bytes += n, length -= (size_t)n, at += n;
    }
}

static struct file *file_named(const char *name) {
    for (struct file *file = files; file; file = file->next)
        if (strcmp(file->name, name) == 0) return file;
    struct file *file = calloc(1, sizeof *file);
    if (!file) fail("calloc");
    snprintf(file->name, sizeof file->name, "%s", name);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", to, name);
    file->has_name_on_disk = access(path, F_OK) == 0;
    file->last = &file->first;
    file->next = files;
    return files = file;
}

static void forget_changes(struct file *file) {
    for (struct change *change = file->first, *next; change; change = next) {
        next = change->next;
        free(change);
    }
    file->first = NULL;
    file->last = &file->first;
}

/* What is left of the path below the folder; NULL when it is elsewhere. */
static const char *below(const char *path) {
    size_t length = from && to ? strlen(from) : 0;
    if (length == 0 || strncmp(path, from, length) != 0) return NULL;
    return path[length] == '/' || path[length] == 0 ? path + length : NULL;
}

static void remember(struct file *file, const void *bytes, size_t length, off_t at);

static void opened(int fd, const char *path) {
    const char *rest = below(path);
    if (!rest || fd < 0 || fd >= FDS_MAX) return;
    pthread_mutex_lock(&lock);
    if (rest[0] == 0 || rest[1] == 0) {
        is_directory[fd] = 1;
    } else if (!strchr(rest + 1, '/')) {
        struct file *file = of_fd[fd] = file_named(rest + 1);
        if (file->is_gone) { /* another of the same name */
            file->is_gone = 0;
            remember(file, "", 0, 0);
        }
    }
    pthread_mutex_unlock(&lock);
}

int unlink(const char *path) {
    int result = real_unlink(path);
    const char *rest = below(path);
    if (result == 0 && rest && rest[0] && rest[1]) {
        pthread_mutex_lock(&lock);
        struct file *file = file_named(rest + 1);
        file->is_gone = 1;
        forget_changes(file);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    int fd = real_open(path, flags, mode);
    opened(fd, path);
    return fd;
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    int fd = real_open(path, flags | O_LARGEFILE, mode);
    opened(fd, path);
    return fd;
}

static void remember(struct file *file, const void *bytes, size_t length, off_t at) {
    struct change *change = malloc(sizeof *change + length);
    if (!change) fail("malloc");
    change->next = NULL;
    change->at = at;
    change->length = length;
    memcpy(change->bytes, bytes, length);
    *file->last = change;
    file->last = &change->next;
    /* The disk may write some of it before anybody asks. */
    if (length > 0 && draw() % 4 == 0) {
        int disk = open_disk(file);
        for (size_t sector = 0; sector < length; sector += SECTOR)
            if (draw() % 2) {
                size_t rest = length - sector;
                put(disk, change->bytes + sector, rest < SECTOR ? rest : SECTOR, at + (off_t)sector);
            }
        real_close(disk);
    }
}

static void written(int fd, const void *bytes, ssize_t length, off_t at) {
    if (fd < 0 || fd >= FDS_MAX || !of_fd[fd] || length <= 0) return;
    pthread_mutex_lock(&lock);
    remember(of_fd[fd], bytes, (size_t)length, at);
    pthread_mutex_unlock(&lock);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    off_t at = fd >= 0 && fd < FDS_MAX && of_fd[fd] ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t n = real_write(fd, bytes, length);
    written(fd, bytes, n, at);
    return n;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    ssize_t n = real_pwrite(fd, bytes, length, at);
    written(fd, bytes, n, at);
    return n;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    return pwrite(fd, bytes, length, at);
}

int ftruncate(int fd, off_t length) {
    int result = real_ftruncate(fd, length);
    if (result == 0 && fd >= 0 && fd < FDS_MAX && of_fd[fd]) {
        pthread_mutex_lock(&lock);
        remember(of_fd[fd], "", 0, length);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int ftruncate64(int fd, off64_t length) {
    return ftruncate(fd, length);
}

static void sync_file(struct file *file) {
    int disk = open_disk(file);
    for (struct change *change = file->first; change; change = change->next) {
        if (change->length > 0)
            put(disk, change->bytes, change->length, change->at);
        else if (real_ftruncate(disk, change->at) != 0)
            fail("ftruncate");
    }
    forget_changes(file);
    real_close(disk);
}

static void sync_directory(void) {
    for (struct file *file = files; file; file = file->next) {
        char hidden[PATH_MAX], named[PATH_MAX];
        if (file->is_gone) {
            disk_path(file, named);
            real_unlink(named);
            file->has_name_on_disk = 0;
            continue;
        }
        if (file->has_name_on_disk) continue;
        disk_path(file, hidden);
        file->has_name_on_disk = 1;
        disk_path(file, named);
        if (access(hidden, F_OK) != 0) real_close(open_disk(file));
        else if (rename(hidden, named) != 0) fail(named);
    }
}

static int sync_fd(int fd) {
    if (fd < 0 || fd >= FDS_MAX) return 0;
    pthread_mutex_lock(&lock);
    if (of_fd[fd]) sync_file(of_fd[fd]);
    if (is_directory[fd]) sync_directory();
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return sync_fd(fd); }

int fdatasync(int fd) { return sync_fd(fd); }

int close(int fd) {
    if (fd >= 0 && fd < FDS_MAX) {
        pthread_mutex_lock(&lock);
        of_fd[fd] = NULL;
        is_directory[fd] = 0;
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}
