#include "worker/process_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace millrace {
namespace {

// The value of "Key:   123 kB" in /proc/meminfo.
Bytes MemInfo(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kib = 0;
  while (file >> name >> kib && std::getline(file, unit)) {
    if (name == key + ":") return Bytes(kib << 10);
  }
  return Bytes(0);
}

std::optional<int64_t> NumberIn(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  int64_t value = 0;
  if (!(file >> text) || !absl::SimpleAtoi(text, &value)) return std::nullopt;  // "max" included
  return value;
}

// The pages of files that the kernel takes back before it refuses memory: read, not written, or
// written back. memory.current counts them.
int64_t FileCacheIn(const std::string& path) {
  std::ifstream file(path);
  std::string name;
  int64_t bytes = 0, sum = 0;
  while (file >> name >> bytes) {
    if (name == "active_file" || name == "inactive_file") sum += bytes;
  }
  return sum;
}

// The cgroup v2 folder of this process and its parents, up to the root: each may set a limit.
// https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
void ApplyCgroupLimits(HostMemory& memory) {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    absl::string_view path = line;
    if (!absl::ConsumePrefix(&path, "0::")) continue;
    std::string folder(path);
    while (true) {
      const std::string base = absl::StrCat("/sys/fs/cgroup", folder == "/" ? "" : folder);
      if (const auto limit = NumberIn(base + "/memory.max")) {
        const int64_t used = NumberIn(base + "/memory.current").value_or(0) -
                             FileCacheIn(base + "/memory.stat");
        memory.total = std::min(memory.total, Bytes(*limit));
        const Bytes left(std::clamp<int64_t>(*limit - used, 0, *limit));
        memory.available = std::min(memory.available, left);
      }
      const size_t slash = folder.rfind('/');
      if (slash == std::string::npos || folder == "/" || folder.empty()) return;
      folder = slash == 0 ? "/" : folder.substr(0, slash);
    }
  }
}

}  // namespace

Bytes ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  if (!(file >> total >> resident)) return Bytes(0);
  return Bytes(resident * sysconf(_SC_PAGESIZE));
}

HostMemory MeasureHostMemory() {
  HostMemory memory{MemInfo("MemTotal"), MemInfo("MemAvailable")};
  ApplyCgroupLimits(memory);
  return memory;
}

}  // namespace millrace
