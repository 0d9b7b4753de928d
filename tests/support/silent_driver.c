/* A CUDA driver without a GPU: modules are written into the folder that SILENT_DRIVER_OUT names, launches compute nothing.

   So Taichi's compiler for CUDA can be run where no GPU is. Memory of the device is the host's. Only what Taichi asks for. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTHING(name) int name(void) { return 0; }
#define REFUSED(name) int name(void) { return 1; }

enum { MAJOR = 75, MINOR = 76, BLOCK = 1, WARP = 10, PROCESSORS = 16, THREADS = 39, SHARED = 97, BLOCKS = 106 };

static int n_modules = 0;

int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuGetErrorName(int error, const char **name) { *name = "an error of the silent driver"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "it computes nothing"; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "silent"); return 0; }

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) { /* those of an H100 */
    case MAJOR: *value = 9; break;
    case BLOCK: *value = 1024; break;
    case WARP: *value = 32; break;
    case PROCESSORS: *value = 132; break;
    case THREADS: *value = 2048; break;
    case SHARED: *value = 232448; break;
    case BLOCKS: *value = 32; break;
    default: *value = 0;
  }
  return 0;
}

static int handle(void **out) { *out = (void *)1; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return handle(context); }
int cuCtxCreate_v2(void **context, int flags, int device) { return handle(context); }
int cuCtxGetCurrent(void **context) { return handle(context); }
int cuDeviceGetDefaultMemPool(void **pool, int device) { return handle(pool); }
int cuStreamCreate(void **stream, unsigned flags) { return handle(stream); }
int cuEventCreate(void **event, unsigned flags) { return handle(event); }
int cuEventElapsedTime(float *time, void *from, void *to) { *time = 0; return 0; }

static int room(void **out, size_t size) { *out = calloc(size + 64, 1); return *out == NULL; }
int cuMemAlloc_v2(void **out, size_t size) { return room(out, size); }
int cuMemAllocAsync(void **out, size_t size, void *stream) { return room(out, size); }
int cuMemAllocManaged(void **out, size_t size, unsigned flags) { return room(out, size); }
int cuMemFree_v2(void *memory) { free(memory); return 0; }
int cuMemFreeAsync(void *memory, void *stream) { free(memory); return 0; }
int cuMemGetInfo_v2(size_t *left, size_t *all) { *left = *all = (size_t)1 << 36; return 0; }
int cuPointerGetAttribute(void *value, unsigned attribute, void *memory) { *(int *)value = 0; return 1; } /* the host's */

static int copied(void *to, const void *from, size_t size) { memcpy(to, from, size); return 0; }
int cuMemcpyHtoD_v2(void *to, void *from, size_t size) { return copied(to, from, size); }
int cuMemcpyDtoH_v2(void *to, void *from, size_t size) { return copied(to, from, size); }
int cuMemcpyDtoD_v2(void *to, void *from, size_t size) { return copied(to, from, size); }
int cuMemcpyHtoDAsync_v2(void *to, void *from, size_t size, void *stream) { return copied(to, from, size); }
int cuMemcpyDtoHAsync_v2(void *to, void *from, size_t size, void *stream) { return copied(to, from, size); }
int cuMemsetD8_v2(void *to, unsigned char value, size_t size) { memset(to, value, size); return 0; }
int cuMemsetD32_v2(uint32_t *to, uint32_t value, size_t n) { while (n--) *to++ = value; return 0; }

int cuModuleLoadDataEx(void **module, const char *code, unsigned n, int *options, void **values) {
  char name[4096];
  snprintf(name, sizeof name, "%s/%04d.ptx", getenv("SILENT_DRIVER_OUT"), n_modules++);
  FILE *file = fopen(name, "w");
  if (!file || fputs(code, file) < 0 || fclose(file)) return 1;
  return handle(module);
}
int cuModuleGetFunction(void **function, void *module, const char *name) { return handle(function); }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *function, int block, size_t shared) { *n = 2; return 0; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { *value = 0; return 0; }

NOTHING(cuInit) NOTHING(cuCtxSetCurrent) NOTHING(cuCtxSetLimit) NOTHING(cuMemPoolSetAttribute) NOTHING(cuMemAdvise)
NOTHING(cuLaunchKernel) NOTHING(cuFuncSetAttribute) NOTHING(cuStreamSynchronize)
NOTHING(cuEventDestroy) NOTHING(cuEventRecord) NOTHING(cuEventSynchronize)

/* Vulkan's memory, which nothing here shares. */
REFUSED(cuImportExternalMemory) REFUSED(cuExternalMemoryGetMappedBuffer) REFUSED(cuExternalMemoryGetMappedMipmappedArray)
REFUSED(cuMipmappedArrayGetLevel) REFUSED(cuSurfObjectCreate) REFUSED(cuImportExternalSemaphore)
REFUSED(cuSignalExternalSemaphoresAsync) REFUSED(cuWaitExternalSemaphoresAsync)
