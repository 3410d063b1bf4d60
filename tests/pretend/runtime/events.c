/* Counting what is asked of the device, and telling Python about it. */
#include "pretend.h"

typedef void (*hook_t)(int kind, const char *name, u64 size);

static u64 counts[NUM_KINDS];
static hook_t hook;
static int hook_hears_work;

/* Called for every event; the hook hears launches and the like only if it asked for them. */
void event(int kind, const char *name, u64 size) {
    __atomic_fetch_add(&counts[kind], 1, __ATOMIC_RELAXED);
    int is_work = kind == LAUNCH || kind == LIBRARY || kind == MALLOC || kind == MEMSET;
    if (hook && (hook_hears_work || !is_work)) hook(kind, name, size);
}

u64 pretend_count(int kind) { return __atomic_load_n(&counts[kind], __ATOMIC_RELAXED); }

void pretend_hook(hook_t function, int hears_work) {
    hook = function;
    hook_hears_work = hears_work;
}
