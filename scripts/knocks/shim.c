/* Preloaded into a command: calls of the system fail, and the clock jumps, as the environment says.
   KNOCKS_LOCK=errno       flock and locks of fcntl fail so
   KNOCKS_IO=words         read, pread, write or fsync of files whose path holds KNOCKS_PATH fail with EIO
   KNOCKS_AFTER=n          ... from the n-th such call on
   KNOCKS_CLOCK=seconds    the time of day jumps to and fro by so many seconds at every tenth look
   KNOCKS_ALWAYS=1         ... and stays there */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int count_of_calls;
static int looks;

static int fails(int file, const char *call)
{
    const char *calls = getenv("KNOCKS_IO"), *within = getenv("KNOCKS_PATH"), *after = getenv("KNOCKS_AFTER");
    char link[64], path[4096];
    if (!calls || !within || !strstr(calls, call)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    if (!strstr(path, within)) return 0;
    return __sync_fetch_and_add(&count_of_calls, 1) >= (after ? atoi(after) : 0);
}

#define FAIL(file, call) if (fails(file, call)) { errno = EIO; return -1; }

ssize_t read(int file, void *into, size_t size) { FAIL(file, "read") return syscall(SYS_read, file, into, size); }
ssize_t write(int file, const void *from, size_t size) { FAIL(file, "write") return syscall(SYS_write, file, from, size); }
ssize_t pread64(int file, void *into, size_t size, off64_t place)
{ FAIL(file, "read") return syscall(SYS_pread64, file, into, size, place); }
ssize_t pread(int file, void *into, size_t size, off_t place) { return pread64(file, into, size, place); }
ssize_t pwrite64(int file, const void *from, size_t size, off64_t place)
{ FAIL(file, "write") return syscall(SYS_pwrite64, file, from, size, place); }
ssize_t pwrite(int file, const void *from, size_t size, off_t place) { return pwrite64(file, from, size, place); }
int fsync(int file) { FAIL(file, "fsync") return syscall(SYS_fsync, file); }

int flock(int file, int operation)
{
    const char *error = getenv("KNOCKS_LOCK");
    if (error) { errno = atoi(error); return -1; }
    return syscall(SYS_flock, file, operation);
}

static long jump(void)
{
    const char *seconds = getenv("KNOCKS_CLOCK");
    if (!seconds) return 0;
    if (getenv("KNOCKS_ALWAYS")) return atol(seconds);
    return (__sync_fetch_and_add(&looks, 1) / 10) % 2 ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int done = syscall(SYS_clock_gettime, clock, now);
    if (!done && clock == CLOCK_REALTIME) now->tv_sec += jump();
    return done;
}

int gettimeofday(struct timeval *now, void *zone)
{
    int done = syscall(SYS_gettimeofday, now, zone);
    if (!done) now->tv_sec += jump();
    return done;
}

time_t time(time_t *into)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
