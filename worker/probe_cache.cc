#include "worker/probe_cache.h"

#include <pwd.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "proto/convert.h"
#include "proto/plan_json.h"

namespace millrace {
namespace {

// Raised when kernels become faster or slower, or what is measured changes.
constexpr int kKernels = 1;

}  // namespace

std::string DefaultCacheFolder() {
  constexpr size_t kRoom = 16384;
  std::string room(kRoom, '\0');
  passwd entry{}, *found = nullptr;
  if (getpwuid_r(getuid(), &entry, room.data(), room.size(), &found) != 0) return "";
  if (found == nullptr || found->pw_dir == nullptr || found->pw_dir[0] == '\0') return "";
  return absl::StrCat(found->pw_dir, "/.cache/millrace");
}

std::string DeviceTimesFile(const std::string& folder, const std::string& key) {
  std::string name = absl::StrCat(key, " kernels", kKernels);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  }
  return absl::StrCat(folder, "/times-", name, ".json");
}

DeviceTimes ReadDeviceTimes(const std::string& folder, const std::string& key) {
  if (folder.empty() || key.empty()) return {};
  std::ifstream file(DeviceTimesFile(folder, key));
  if (!file) return {};
  std::stringstream text;
  text << file.rdbuf();
  const absl::StatusOr<DeviceTimes> times = DeviceTimesFromJson(text.str());
  return times.ok() ? *times : DeviceTimes();
}

absl::Status WriteDeviceTimes(const std::string& folder, const std::string& key,
                              const DeviceTimes& times) {
  if (folder.empty() || key.empty()) return absl::OkStatus();
  const std::string path = DeviceTimesFile(folder, key);
  const std::string whole = absl::StrCat(path, ".", getpid());
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) {
    std::ofstream file(whole);
    file << MessageToJson(ToProto(times));
    file.close();
    if (!file) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) std::filesystem::rename(whole, path, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot write '", path, "': ", error.message(),
                                          "; choose another folder with --cache-dir"));
}

}  // namespace millrace
