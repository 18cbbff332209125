// Restores one frame with a LiteRT file of a fixed size, tile by tile, as keras_deartifact/restore.py does.
//
//     restore_frame MODEL.tflite IN.ppm OUT.ppm [LOG2_STEP [MARGIN [cpu|gpu]]]
//
// The frame is padded to multiples of 16 by its last row and column and cut into overlapping tiles of the model's size,
// whose origins are multiples of 16; of each result the part further than MARGIN from the tile's borders is used, up to
// the frame's own borders. LOG2_STEP, log2 of the luma quantiser step, is the same for the whole frame: of H.264 it is
// (QP - 4) / 6.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "litert_c_subset.h"

namespace {

constexpr int kGrid = 16;  // Codecs work on blocks of 16x16 at most, and the quantiser map has a value for each.
constexpr double kDefaultLog2Step = 4.5;  // As quantiser.DEFAULT_LOG2_STEP.
constexpr int kDefaultMargin = 64;
constexpr std::int64_t kMaximumPixels = 1 << 26;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Frame {
  int height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  // RGB, row by row
};

// Along one axis: the tile starts at `origin`, and gives the frame's pixels `begin` to `end`.
struct Span {
  int origin, begin, end;
};

int RoundUp(int value) { return (value + kGrid - 1) / kGrid * kGrid; }

std::vector<Span> Spans(int size, int tile, int margin) {
  std::vector<Span> spans;
  // The last tile is moved back, not cut short: it overlaps more.
  const int last = std::max(0, size - tile);
  for (int origin = 0, begin = 0;; origin += tile - 2 * margin) {
    origin = std::min(origin, last);
    const int end = origin == last ? size : origin + tile - margin;
    spans.push_back({origin, begin, end});
    begin = end;
    if (origin == last) return spans;
  }
}

int ReadNumber(std::istream& stream, const std::string& path) {
  while ((stream >> std::ws).peek() == '#') stream.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  int value = 0;
  if (!(stream >> value) || value <= 0) throw Error(path + " is no binary PPM (P6) of 8 bits");
  return value;
}

Frame ReadPpm(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw Error("there is no file " + path);
  char magic[2] = {};
  if (!stream.read(magic, 2) || magic[0] != 'P' || magic[1] != '6') throw Error(path + " is no binary PPM (P6)");
  Frame frame;
  frame.width = ReadNumber(stream, path);
  frame.height = ReadNumber(stream, path);
  if (ReadNumber(stream, path) != 255) throw Error(path + " is no binary PPM (P6) of 8 bits");
  if (std::int64_t{frame.width} * frame.height > kMaximumPixels) throw Error(path + " is too large");
  stream.get();
  frame.pixels.resize(std::size_t{3} * frame.width * frame.height);
  if (!stream.read(reinterpret_cast<char*>(frame.pixels.data()), static_cast<std::streamsize>(frame.pixels.size()))) {
    throw Error(path + " ends too early");
  }
  return frame;
}

void WritePpm(const std::string& path, const Frame& frame) {
  std::ofstream stream(path, std::ios::binary);
  stream << "P6\n" << frame.width << " " << frame.height << "\n255\n";
  stream.write(reinterpret_cast<const char*>(frame.pixels.data()), static_cast<std::streamsize>(frame.pixels.size()));
  if (!stream.flush()) throw Error("cannot write " + path);
}

void Check(LiteRtStatus status, const std::string& what) {
  if (status != kLiteRtStatusOk) throw Error(what + " (LiteRT status " + std::to_string(status) + ")");
}

template <typename Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, void (*)(Handle)>;

// A tensor with its memory. Integers stand for (value - zero point) * scale.
struct Port {
  LiteRtRankedTensorType type;
  LiteRtQuantizationPerTensor quantisation{1.0f, 0};
  Owned<LiteRtTensorBuffer> buffer{nullptr, LiteRtDestroyTensorBuffer};

  int side(int axis) const { return type.layout.dimensions[axis]; }
  std::size_t size() const { return std::size_t{1} * side(1) * side(2) * side(3); }

  void Write(const std::vector<float>& values) const {
    void* memory = nullptr;
    Check(LiteRtLockTensorBuffer(buffer.get(), &memory, kLiteRtTensorBufferLockModeWrite), "cannot fill a tensor");
    if (type.element_type == kLiteRtElementTypeFloat32) {
      std::copy(values.begin(), values.end(), static_cast<float*>(memory));
    } else if (type.element_type == kLiteRtElementTypeUInt8) {
      Quantise(values, static_cast<std::uint8_t*>(memory));
    } else {
      Quantise(values, static_cast<std::int8_t*>(memory));
    }
    Check(LiteRtUnlockTensorBuffer(buffer.get()), "cannot fill a tensor");
  }

  void Read(std::vector<float>& values) const {
    void* memory = nullptr;
    Check(LiteRtLockTensorBuffer(buffer.get(), &memory, kLiteRtTensorBufferLockModeRead), "cannot read a tensor");
    if (type.element_type == kLiteRtElementTypeFloat32) {
      std::copy_n(static_cast<const float*>(memory), values.size(), values.begin());
    } else if (type.element_type == kLiteRtElementTypeUInt8) {
      Dequantise(static_cast<const std::uint8_t*>(memory), values);
    } else {
      Dequantise(static_cast<const std::int8_t*>(memory), values);
    }
    Check(LiteRtUnlockTensorBuffer(buffer.get()), "cannot read a tensor");
  }

 private:
  template <typename Integer>
  void Quantise(const std::vector<float>& values, Integer* memory) const {
    const float low = std::numeric_limits<Integer>::min(), high = std::numeric_limits<Integer>::max();
    for (float value : values) {
      const float level = std::round(value / quantisation.scale) + static_cast<float>(quantisation.zero_point);
      *memory++ = static_cast<Integer>(std::clamp(level, low, high));
    }
  }

  template <typename Integer>
  void Dequantise(const Integer* memory, std::vector<float>& values) const {
    for (float& value : values) {
      value = static_cast<float>(*memory++ - quantisation.zero_point) * quantisation.scale;
    }
  }
};

class Network {
 public:
  Network(const std::string& path, int accelerators) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw Error("there is no file " + path);
    content_.assign(std::istreambuf_iterator<char>(stream), {});
    // LiteRT tells what it loads, line by line: errors alone are left.
    LiteRtEnvOption quiet{kLiteRtEnvOptionTagMinLoggerSeverity, {kLiteRtAnyTypeInt, {3}}};
    LiteRtEnvironment environment = nullptr;
    Check(LiteRtCreateEnvironment(1, &quiet, &environment), "cannot start LiteRT");
    environment_.reset(environment);
    LiteRtModel model = nullptr;
    // LiteRT checks a model in memory; of a truncated file that it opens by itself it reads past the end.
    Check(LiteRtCreateModelFromBuffer(environment, content_.data(), content_.size(), &model),
          path + " is no whole LiteRT model");
    model_.reset(model);
    LiteRtOptions options = nullptr;
    Check(LiteRtCreateOptions(&options), "cannot start LiteRT");
    Owned<LiteRtOptions> owned_options(options, LiteRtDestroyOptions);
    Check(LiteRtSetOptionsHardwareAccelerators(options, accelerators), "cannot choose an accelerator");
    LiteRtCompiledModel compiled = nullptr;
    Check(LiteRtCreateCompiledModel(environment, model, options, &compiled), path + " cannot be compiled");
    compiled_.reset(compiled);

    LiteRtSignature signature = nullptr;
    Check(LiteRtGetModelSignature(model, 0, &signature), path + " has no signature");
    LiteRtParamIndex inputs = 0, outputs = 0;
    Check(LiteRtGetNumSignatureInputs(signature, &inputs), path + " has no inputs");
    Check(LiteRtGetNumSignatureOutputs(signature, &outputs), path + " has no outputs");
    if (inputs != 2 || outputs != 1) throw Error(path + " has not two inputs and one output: it is no generator");
    for (LiteRtParamIndex index = 0; index < inputs; ++index) {
      LiteRtTensor tensor = nullptr;
      Check(LiteRtGetSignatureInputTensorByIndex(signature, index, &tensor), path + " has no such input");
      LiteRtTensorBufferRequirements requirements = nullptr;
      Check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, index, &requirements), "no memory for inputs");
      inputs_.push_back(MakePort(path, tensor, requirements));
    }
    LiteRtTensor tensor = nullptr;
    Check(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor), path + " has no such output");
    LiteRtTensorBufferRequirements requirements = nullptr;
    Check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &requirements), "no memory for the output");
    output_ = MakePort(path, tensor, requirements);

    // The images are the larger input, whatever the order in the file.
    images_ = inputs_[0].size() > inputs_[1].size() ? 0 : 1;
    const Port &images = inputs_[images_], &map = inputs_[1 - images_];
    if (images.side(3) != 3 || output_.size() != images.size() || images.side(1) != map.side(1) * kGrid ||
        images.side(2) != map.side(2) * kGrid || map.side(3) != 1) {
      throw Error(path + " is no generator of RGB with a quantiser map");
    }
  }

  int height() const { return inputs_[images_].side(1); }
  int width() const { return inputs_[images_].side(2); }

  void FillMap(float log2_step) const {
    inputs_[1 - images_].Write(std::vector<float>(inputs_[1 - images_].size(), log2_step));
  }

  // From and to the values of one tile, RGB in [0, 1]; the result may leave them.
  void Run(std::vector<float>& values) const {
    inputs_[images_].Write(values);
    LiteRtTensorBuffer inputs[] = {inputs_[0].buffer.get(), inputs_[1].buffer.get()};
    LiteRtTensorBuffer outputs[] = {output_.buffer.get()};
    Check(LiteRtRunCompiledModel(compiled_.get(), 0, 2, inputs, 1, outputs), "the model does not run");
    output_.Read(values);
  }

 private:
  Port MakePort(const std::string& path, LiteRtTensor tensor, LiteRtTensorBufferRequirements requirements) const {
    Port port;
    Check(LiteRtGetRankedTensorType(tensor, &port.type), path + " has a tensor without a size");
    const LiteRtLayout& layout = port.type.layout;
    if (layout.rank != 4 || *std::min_element(layout.dimensions, layout.dimensions + 4) < 1) {
      throw Error(path + " leaves its sizes open: export it with a fixed tile");
    }
    if (layout.dimensions[0] != 1) throw Error(path + " takes several tiles at once: export it for one");
    const LiteRtElementType type = port.type.element_type;
    if (type == kLiteRtElementTypeUInt8 || type == kLiteRtElementTypeInt8) {
      Check(LiteRtGetPerTensorQuantization(tensor, &port.quantisation), path + " has integers without a scale");
    } else if (type != kLiteRtElementTypeFloat32) {
      throw Error(path + " has tensors of neither float32 nor 8-bit integers");
    }
    LiteRtTensorBuffer buffer = nullptr;
    Check(LiteRtCreateManagedTensorBufferFromRequirements(environment_.get(), &port.type, requirements, &buffer),
          "no memory for a tensor");
    port.buffer.reset(buffer);
    return port;
  }

  // Destroyed from the last to the first: tensors before what they belong to, and the file's content after all.
  std::vector<char> content_;
  Owned<LiteRtEnvironment> environment_{nullptr, LiteRtDestroyEnvironment};
  Owned<LiteRtModel> model_{nullptr, LiteRtDestroyModel};
  Owned<LiteRtCompiledModel> compiled_{nullptr, LiteRtDestroyCompiledModel};
  std::vector<Port> inputs_;
  Port output_;
  int images_ = 0;
};

Frame Restore(const Network& network, const Frame& frame, int margin) {
  const int height = network.height(), width = network.width();
  Frame result{frame.height, frame.width, std::vector<std::uint8_t>(frame.pixels.size())};
  std::vector<float> tile(std::size_t{3} * height * width);
  for (const Span& rows : Spans(RoundUp(frame.height), height, margin)) {
    for (const Span& columns : Spans(RoundUp(frame.width), width, margin)) {
      for (int y = 0, to = 0; y < height; ++y) {
        const std::size_t row = std::min(rows.origin + y, frame.height - 1);
        for (int x = 0; x < width; ++x) {
          const std::size_t pixel = row * frame.width + std::min(columns.origin + x, frame.width - 1);
          for (int channel = 0; channel < 3; ++channel) tile[to++] = frame.pixels[3 * pixel + channel] / 255.0f;
        }
      }
      network.Run(tile);
      for (int y = rows.begin; y < std::min(rows.end, frame.height); ++y) {
        for (int x = columns.begin; x < std::min(columns.end, frame.width); ++x) {
          const std::size_t from = 3 * (std::size_t{1} * (y - rows.origin) * width + (x - columns.origin));
          const std::size_t to = 3 * (std::size_t{1} * y * frame.width + x);
          for (int channel = 0; channel < 3; ++channel) {
            const float level = std::floor(255.0f * tile[from + channel] + 0.5f);
            if (!std::isfinite(level)) throw Error("the model returned no number");
            result.pixels[to + channel] = static_cast<std::uint8_t>(std::clamp(level, 0.0f, 255.0f));
          }
        }
      }
    }
  }
  return result;
}

double Number(const char* text, double low, double high, const std::string& what) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end || !(value >= low && value <= high)) throw Error(what + ". Received: " + text);
  return value;
}

int Main(int count, char** words) {
  if (count < 4 || count > 7) {
    std::fprintf(stderr, "usage: %s MODEL.tflite IN.ppm OUT.ppm [LOG2_STEP [MARGIN [cpu|gpu]]]\n", words[0]);
    return 2;
  }
  const double log2_step =
      count > 4 ? Number(words[4], -16, 16, "expected a LOG2_STEP of -16 to 16") : kDefaultLog2Step;
  const int margin =
      RoundUp(count > 5 ? static_cast<int>(Number(words[5], 0, 1 << 16, "expected a MARGIN of at least 0 pixels"))
                        : kDefaultMargin);
  const std::string where = count > 6 ? words[6] : "cpu";
  if (where != "cpu" && where != "gpu") throw Error("expected cpu or gpu. Received: " + where);
  // With both named, the CPU takes what the GPU does not.
  const int accelerators = kLiteRtHwAcceleratorCpu | (where == "gpu" ? kLiteRtHwAcceleratorGpu : 0);

  const Frame frame = ReadPpm(words[2]);
  const Network network(words[1], accelerators);
  if (std::min(network.height(), network.width()) <= 2 * margin) {
    throw Error("nothing is left of a tile of " + std::to_string(network.width()) + "x" +
                std::to_string(network.height()) + " without margins of " + std::to_string(margin));
  }
  network.FillMap(static_cast<float>(log2_step));
  const auto started = std::chrono::steady_clock::now();
  const Frame restored = Restore(network, frame, margin);
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - started;
  WritePpm(words[3], restored);
  std::printf("%dx%d: %.1f ms\n", frame.width, frame.height, taken.count());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  try {
    return Main(count, words);
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
