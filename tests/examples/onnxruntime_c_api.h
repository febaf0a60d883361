// The part of ONNX Runtime's C API that examples/edge/map.cpp calls, for machines without its headers.
//
// ONNX Runtime only ever appends to this table, so that the places of these functions are the same
// in every release. The names, types and places are its own (MIT licence); what lies between is left
// out. For programs, take the header of the release.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 2
#define OPAQUE(name) typedef struct name name
OPAQUE(OrtEnv);
OPAQUE(OrtStatus);
OPAQUE(OrtMemoryInfo);
OPAQUE(OrtSession);
OPAQUE(OrtValue);
OPAQUE(OrtRunOptions);
OPAQUE(OrtSessionOptions);
OPAQUE(OrtModelMetadata);
OPAQUE(OrtAllocator);

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING = 2 };
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2 };

struct OrtApi {
  void* gap_0[2];
  const char* (*GetErrorMessage)(const OrtStatus*);  // 2
  OrtStatus* (*CreateEnv)(OrtLoggingLevel, const char*, OrtEnv**);
  void* gap_4[3];
  OrtStatus* (*CreateSession)(const OrtEnv*, const char*, const OrtSessionOptions*, OrtSession**);  // 7
  void* gap_8[1];
  OrtStatus* (*Run)(OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, size_t,
                    const char* const*, size_t, OrtValue**);  // 9
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions**);
  void* gap_11[38];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t,
                                               ONNXTensorElementDataType, OrtValue**);  // 49
  void* gap_50[19];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo**);  // 69
  void* gap_70[8];
  OrtStatus* (*GetAllocatorWithDefaultOptions)(OrtAllocator**);  // 78
  void* gap_79[32];
  OrtStatus* (*SessionGetModelMetadata)(const OrtSession*, OrtModelMetadata**);  // 111
  void* gap_112[4];
  OrtStatus* (*ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata*, OrtAllocator*, const char*,
                                                     char**);  // 116
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t);
  const char* (*GetVersionString)();
};
extern "C" const OrtApiBase* OrtGetApiBase();
