/* Preloaded: while the file named by FAIL_FLAG exists, syncing a file whose path contains FAIL_PATH fails with EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failing(int fd)
{
    char link[64], path[4096];
    const char *flag = getenv("FAIL_FLAG"), *part = getenv("FAIL_PATH");
    ssize_t length;

    if (!flag || !part || access(flag, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

static int really(const char *name, int fd)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

    if (failing(fd)) {
        errno = EIO;
        return -1;
    }
    return next(fd);
}

int fsync(int fd) { return really("fsync", fd); }
int fdatasync(int fd) { return really("fdatasync", fd); }
