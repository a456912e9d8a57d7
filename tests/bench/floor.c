/* What no module can do without: it looks the user up, asks, reads the policy and a file, puts another in its place for good, and
 * says in the log who came. Judges nothing.
 *
 *   auth required FLOOR.so exchange DIRECTORY POLICY    as the root-only store does: written over the sibling, then exchanged
 *   auth required FLOOR.so rename DIRECTORY POLICY      as a file in the home is replaced: a new one, then renamed
 *
 * The file is `record`; for the exchange there is `record~` beside it. Declared here, so that no header of libpam is needed. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

struct pam_message { int style; const char *text; };
struct pam_response { char *text; int code; };
struct pam_conv { int (*ask)(int, const struct pam_message **, struct pam_response **, void *); void *data; };
int pam_get_item(const void *pamh, int item, const void **value);
int pam_get_user(void *pamh, const char **user, const char *prompt);
void pam_syslog(const void *pamh, int priority, const char *format, ...);

enum { SUCCESS = 0, AUTH_ERR = 7, CONV = 5, ECHO_OFF = 1 };

static ssize_t contents(int directory, const char *name, char *text, size_t most) {
    int file = openat(directory, name, O_RDONLY | O_CLOEXEC);
    ssize_t size = read(file, text, most);
    return close(file) ? -1 : size;
}

static int ask(void *pamh, const char **user) {
    const struct pam_message message = { ECHO_OFF, "Verification code: " }, *messages = &message;
    struct pam_response *response = NULL;
    const void *conv = NULL;
    char names[1024];
    struct passwd entry, *found;
    if (pam_get_user(pamh, user, NULL) || getpwnam_r(*user, &entry, names, sizeof names, &found) || !found || pam_get_item(pamh, CONV, &conv) || !conv)
        return -1;
    if (((const struct pam_conv *)conv)->ask(1, &messages, &response, ((const struct pam_conv *)conv)->data))
        return -1;
    free(response->text);
    free(response);
    return 0;
}

static int exchange(int directory, const char *text, size_t size) {
    int file = openat(directory, "record~", O_RDWR | O_CLOEXEC);
    return pwrite(file, text, size, 0) != (ssize_t)size || fdatasync(file)
        || renameat2(directory, "record", directory, "record~", RENAME_EXCHANGE) || fsync(directory)
        || pwrite(file, "\n", 1, size - 1) != 1 || close(file);
}

static int replace(int directory, const char *text, size_t size) {
    int file = openat(directory, "record~", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return write(file, text, size) != (ssize_t)size || fsync(file)
        || renameat(directory, "record~", directory, "record") || fsync(directory) || close(file);
}

int pam_sm_authenticate(void *pamh, int flags, int argc, const char **argv) {
    char text[65536];
    const char *user;
    (void)flags;
    if (argc != 3 || contents(AT_FDCWD, argv[2], text, sizeof text) < 1 || ask(pamh, &user))
        return AUTH_ERR;
    int directory = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t size = contents(directory, "record", text, sizeof text);
    if (size < 1)
        return AUTH_ERR;
    int failed = (strcmp(argv[0], "exchange") ? replace : exchange)(directory, text, size);
    if (failed || close(directory))
        return AUTH_ERR;
    pam_syslog(pamh, LOG_INFO, "accepted user=%s", user);
    return SUCCESS;
}

int pam_sm_setcred(void *pamh, int flags, int argc, const char **argv) {
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return SUCCESS;
}
