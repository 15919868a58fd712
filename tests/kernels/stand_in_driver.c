// Stands in for the CUDA driver library on a machine without one, as far as cuDNN needs it to make
// plans for a GPU that is only described: modules "load", kernels are "found", everything else
// answers CUDA_ERROR_STUB_LIBRARY. Nothing can run on it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

enum { kSuccess = 0, kStubLibrary = 34 };

// Enough for every entry point: on the ABIs that CUDA has, a callee may ignore its arguments.
static int Unsupported(void) { return kStubLibrary; }

int cuInit(unsigned flags) {
  (void)flags;
  return kSuccess;
}

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}

static int GiveHandle(void** handle) {
  static char thing;
  *handle = &thing;
  return kSuccess;
}

static int GiveZero(int* value) {
  *value = 0;
  return kSuccess;
}

static int ErrorText(int error, const char** text) {
  (void)error;
  *text = "not supported by the stand-in for the CUDA driver";
  return kSuccess;
}

// cuDNN and the run-time compiler look these up by name in the library, and some crash where one is
// missing.
#define UNSUPPORTED(name) \
  int name(void) { return Unsupported(); }
UNSUPPORTED(cuLaunchKernelEx)
UNSUPPORTED(cuCtxGetCurrent)
UNSUPPORTED(cuCtxGetLimit)
UNSUPPORTED(cuCtxPopCurrent)
UNSUPPORTED(cuCtxPushCurrent)
UNSUPPORTED(cuStreamGetCtx)
UNSUPPORTED(cuCtxGetDevice)
UNSUPPORTED(cuDeviceGetAttribute)
UNSUPPORTED(cuDevicePrimaryCtxRelease)
UNSUPPORTED(cuDevicePrimaryCtxReset)
UNSUPPORTED(cuDevicePrimaryCtxRetain)
UNSUPPORTED(cuGetExportTable)
UNSUPPORTED(cuLinkAddData_v2)
UNSUPPORTED(cuLinkAddFile_v2)
UNSUPPORTED(cuLinkCreate_v2)
UNSUPPORTED(cuMemcpyDtoH_v2)
UNSUPPORTED(cuModuleGetGlobal_v2)
UNSUPPORTED(cuModuleLoadFatBinary)
UNSUPPORTED(cuOccupancyMaxActiveBlocksPerMultiprocessor)
UNSUPPORTED(cuStreamSynchronize)
UNSUPPORTED(cuTensorMapEncodeTiled)
UNSUPPORTED(cuLinkCreate)
UNSUPPORTED(cuLinkAddData)
UNSUPPORTED(cuLinkComplete)
UNSUPPORTED(cuLinkDestroy)
UNSUPPORTED(cuLaunchKernel)
UNSUPPORTED(cuLaunchCooperativeKernel)
UNSUPPORTED(cuDeviceGetCount)
UNSUPPORTED(cuDeviceGet)
UNSUPPORTED(cuLibraryLoadFromFile)
UNSUPPORTED(cuOccupancyMaxPotentialClusterSize)

// Whatever is loaded or found, the same handle; whatever is set, fine; every attribute is zero.
#define GIVES_HANDLE(name) \
  int name(void** handle) { return GiveHandle(handle); }
#define GIVES_ZERO(name) \
  int name(int* value) { return GiveZero(value); }
#define SUCCEEDS(name) \
  int name(void) { return kSuccess; }
#define GIVES_TEXT(name) \
  int name(int error, const char** text) { return ErrorText(error, text); }
GIVES_HANDLE(cuLibraryLoadData)
GIVES_HANDLE(cuLibraryGetKernel)
GIVES_HANDLE(cuLibraryGetModule)
GIVES_HANDLE(cuKernelGetFunction)
GIVES_HANDLE(cuModuleLoadData)
GIVES_HANDLE(cuModuleLoadDataEx)
GIVES_HANDLE(cuModuleGetFunction)
GIVES_ZERO(cuFuncGetAttribute)
GIVES_ZERO(cuKernelGetAttribute)
SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuKernelSetAttribute)
SUCCEEDS(cuFuncGetModule)
SUCCEEDS(cuLibraryGetKernelCount)
SUCCEEDS(cuLibraryUnload)
SUCCEEDS(cuModuleGetFunctionCount)
SUCCEEDS(cuModuleUnload)
GIVES_TEXT(cuGetErrorString)
GIVES_TEXT(cuGetErrorName)

// The runtime library asks here instead.
int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags,
                        int* result) {
  (void)version;
  (void)flags;
  *function = strcmp(name, "cuGetProcAddress") == 0 ? (void*)cuGetProcAddress_v2
                                                    : dlsym(RTLD_DEFAULT, name);
  if (*function == 0) *function = (void*)Unsupported;
  if (result) *result = 0;
  return kSuccess;
}

int cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
