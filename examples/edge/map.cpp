// A picture becomes a class raster with ONNX Runtime alone: map MODEL.onnx IN.ppm OUT.pgm
// MODEL.onnx: terradapt export RUN -o MODEL.onnx --argmax   (windows side by side, nothing blended)
// IN.ppm: 8 bit RGB, binary (P6); OUT.pgm: class ids, binary (P5). docs/edge.md says how to build it.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

static const OrtApi* ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);

static void check(OrtStatus* status) {
  if (status != nullptr) throw std::runtime_error(ort->GetErrorMessage(status));
}

int main(int count, char** words) try {
  if (count != 4) throw std::runtime_error("usage: map MODEL.onnx IN.ppm OUT.pgm");
  int width = 0, height = 0, depth = 0, side = 0;
  std::string magic;
  std::ifstream picture(words[2], std::ios::binary);
  picture >> magic >> width >> height >> depth;
  if (magic != "P6" || depth != 255 || width < 1 || height < 1) throw std::runtime_error("no 8 bit P6 picture");
  std::vector<char> rgb(size_t(3) * width * height), ids(size_t(width) * height);
  if (!picture.ignore(1).read(rgb.data(), std::streamsize(rgb.size())))
    throw std::runtime_error("the picture is cut short");

  OrtEnv* env; OrtSessionOptions* options; OrtSession* session;
  OrtAllocator* allocator; OrtModelMetadata* metadata; OrtMemoryInfo* memory;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "map", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(env, words[1], options, &session));
  check(ort->GetAllocatorWithDefaultOptions(&allocator));
  check(ort->SessionGetModelMetadata(session, &metadata));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  const auto stated = [&](const char* key) {  // what the file says of itself
    char* text = nullptr;
    check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, key, &text));
    return std::string(text == nullptr ? "" : text);
  };
  float mean[3], deviation[3];
  if (std::sscanf(stated("standardization_mean").c_str(), "[%f, %f, %f]", &mean[0], &mean[1], &mean[2]) != 3 ||
      std::sscanf(stated("standardization_std").c_str(), "[%f, %f, %f]", &deviation[0], &deviation[1],
                  &deviation[2]) != 3 ||
      std::sscanf(stated("tile_size").c_str(), "%d", &side) != 1 || side < 1)
    throw std::runtime_error("not exported by terradapt, or not of three bands");

  // One window of pixels and one of ids; both tensors lie in these vectors, for every window.
  std::vector<float> pixels(size_t(3) * side * side);
  std::vector<uint8_t> window(size_t(side) * side);
  const int64_t in_shape[] = {1, 3, side, side}, out_shape[] = {1, side, side};
  const char *in_name = "image", *out_name = "classes";
  OrtValue *input = nullptr, *output = nullptr;
  check(ort->CreateTensorWithDataAsOrtValue(memory, pixels.data(), pixels.size() * sizeof(float), in_shape, 4,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
  check(ort->CreateTensorWithDataAsOrtValue(memory, window.data(), window.size(), out_shape, 3,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &output));
  for (int row = 0; row < height; row += side)
    for (int column = 0; column < width; column += side) {
      // The last windows are pulled back into the picture, to see more than black.
      const int top = std::max(0, std::min(row, height - side)), left = std::max(0, std::min(column, width - side));
      const auto place = [&](size_t i) { return (top + i / side) * width + left + i % side; };
      const auto inside = [&](size_t i) { return top + i / side < size_t(height) && left + i % side < size_t(width); };
      for (size_t i = 0; i < window.size(); ++i)
        for (int band = 0; band < 3; ++band) {
          const float value = inside(i) ? float(uint8_t(rgb[3 * place(i) + band])) : 0.0f;  // beyond it is black
          pixels[band * window.size() + i] = (value - mean[band] * 255.0f) / (deviation[band] * 255.0f);
        }
      check(ort->Run(session, nullptr, &in_name, &input, 1, &out_name, 1, &output));
      for (size_t i = 0; i < window.size(); ++i)
        if (inside(i)) ids[place(i)] = char(window[i]);
    }
  std::ofstream result(words[3], std::ios::binary);
  result << "P5\n" << width << " " << height << "\n255\n";
  if (!result.write(ids.data(), std::streamsize(ids.size())).flush())
    throw std::runtime_error("the result cannot be written");
  return 0;  // the process's end gives ONNX Runtime's objects back
} catch (const std::exception& error) {
  return std::cerr << "error: " << error.what() << "\n", 1;
}
