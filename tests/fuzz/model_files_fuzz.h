// What the fuzzers of model files run: shared with the ordinary tests, which feed it a corpus.
#ifndef MILLRACE_TESTS_FUZZ_MODEL_FILES_FUZZ_H_
#define MILLRACE_TESTS_FUZZ_MODEL_FILES_FUZZ_H_

#include <cstddef>
#include <cstdint>

namespace millrace {

// Opens the bytes as a GGUF model; if that succeeds, touches every tensor and the vocabulary.
void FuzzGguf(const uint8_t* data, size_t size);
// Parses the bytes as a safetensors file and touches every tensor.
void FuzzSafetensors(const uint8_t* data, size_t size);

}  // namespace millrace

#endif  // MILLRACE_TESTS_FUZZ_MODEL_FILES_FUZZ_H_
