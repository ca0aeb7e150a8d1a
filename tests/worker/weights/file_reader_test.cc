#include "worker/weights/file_reader.h"

#include <array>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(FileReaderTest, MapsAndReadsWithinBounds) {
  const std::string path = ::testing::TempDir() + "/file-reader";
  std::ofstream(path) << "0123456789";
  auto reader = OpenMappedFile(path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->size(), Bytes(10));
  EXPECT_EQ((*reader)->Map()[9], std::byte{'9'});
  std::array<std::byte, 4> out;
  EXPECT_TRUE((*reader)->ReadAt(Bytes(6), absl::MakeSpan(out)).ok());
  EXPECT_EQ(out[0], std::byte{'6'});
  for (int64_t offset : {int64_t{7}, int64_t{-1}, int64_t{11}, INT64_MAX}) {
    const absl::Status status = (*reader)->ReadAt(Bytes(offset), absl::MakeSpan(out));
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << offset;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  }
}

TEST(FileReaderTest, MissingEmptyAndFolderAreNamed) {
  const std::string empty = ::testing::TempDir() + "/file-reader-empty";
  std::ofstream{empty};
  EXPECT_EQ(OpenMappedFile("no/such/file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenMappedFile(empty).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(OpenMappedFile(::testing::TempDir()).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(OpenMappedFile(empty).status().message()), HasSubstr(empty));
}

}  // namespace
}  // namespace millrace
