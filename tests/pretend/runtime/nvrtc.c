/* NVRTC that compiles to nothing, for the kernels that PyTorch builds when they are first used. */
#include <stddef.h>
#include <string.h>

#define NOTHING(name)                                                                              \
    int name() { return 0; }

static int program;

int nvrtcVersion(int *major, int *minor) {
    *major = PRETENDED_VERSION / 1000;
    *minor = PRETENDED_VERSION % 1000 / 10;
    return 0;
}
const char *nvrtcGetErrorString(int error) { return "pretended"; }
int nvrtcGetNumSupportedArchs(int *count) {
    *count = 1;
    return 0;
}
int nvrtcGetSupportedArchs(int *capabilities) {
    *capabilities = 90;
    return 0;
}
int nvrtcCreateProgram(void **created, const char *source, const char *name, int num_headers,
                       const char **headers, const char **include_names) {
    *created = &program;
    return 0;
}
int nvrtcGetLoweredName(void *of, const char *name, const char **lowered) {
    *lowered = "pretended";
    return 0;
}

#define CODE_SIZE 8
#define CODE(name)                                                                                 \
    int nvrtcGet##name##Size(void *of, size_t *size) {                                             \
        *size = CODE_SIZE;                                                                         \
        return 0;                                                                                  \
    }                                                                                              \
    int nvrtcGet##name(void *of, char *code) {                                                     \
        memset(code, 0, CODE_SIZE);                                                                \
        return 0;                                                                                  \
    }
CODE(PTX)
CODE(CUBIN)

int nvrtcGetProgramLogSize(void *of, size_t *size) {
    *size = 1;
    return 0;
}
int nvrtcGetProgramLog(void *of, char *log) {
    *log = 0;
    return 0;
}
NOTHING(nvrtcCompileProgram)
NOTHING(nvrtcAddNameExpression)
NOTHING(nvrtcDestroyProgram)
