// GGUF files that end early: at every length, with and without their weights being asked for.
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert.h"
#include "proto/placement_plan.h"
#include "tests/worker/model/raw_gguf.h"
#include "worker/model/gguf_model.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using SharedModel = absl::StatusOr<std::shared_ptr<const Model>>;

// The bytes are copied to memory of exactly their size, for the address sanitizer; they live as
// long as this.
class Opened {
 public:
  Opened(const std::string& bytes, GgufExtent extent)
      : bytes_(new std::byte[bytes.size()]), model_(Open(bytes, extent)) {}
  const SharedModel& model() const { return model_; }
  const ModelSpec& spec() const { return (*model_)->spec(); }

 private:
  SharedModel Open(const std::string& bytes, GgufExtent extent) {
    std::memcpy(bytes_.get(), bytes.data(), bytes.size());
    auto files =
        OpenGguf(ReadMemory("cut.gguf", absl::MakeConstSpan(bytes_.get(), bytes.size())), extent);
    if (!files.ok()) return files.status();
    return OpenGgufModel("cut.gguf", *std::move(files));
  }

  std::unique_ptr<std::byte[]> bytes_;
  SharedModel model_;
};

std::string Everything(const ModelSpec& spec) { return ToProto(spec).SerializeAsString(); }

// Where the tensor table ends: the file without its weights, less the padding before them.
size_t TableEnd(RawGguf g) {
  g.data_bytes = 0;
  g.alignment = 1;
  return g.Bytes().size();
}

class TruncatedGgufTest : public ::testing::Test {
 protected:
  const RawGguf raw_ = TinyLlama();
  const std::string whole_ = raw_.Bytes();
  const size_t table_end_ = TableEnd(raw_);
  const Opened full_{whole_, GgufExtent::kWhole};
};

TEST_F(TruncatedGgufTest, MetadataOfEveryLengthIsRefusedBeforeTheTableEndsAndTheSameAfter) {
  ASSERT_TRUE(full_.model().ok()) << full_.model().status();
  for (size_t length = 0; length < whole_.size(); ++length) {
    const Opened cut(whole_.substr(0, length), GgufExtent::kMetadata);
    if (length < table_end_) {
      ASSERT_EQ(cut.model().status().code(), absl::StatusCode::kDataLoss) << length;
      ASSERT_THAT(cut.model().status().message(),
                  AllOf(HasSubstr("cut.gguf"), HasSubstr("cut short")))
          << length;
      continue;
    }
    ASSERT_TRUE(cut.model().ok()) << length << ": " << cut.model().status();
    ASSERT_EQ(Everything(cut.spec()), Everything(full_.spec())) << length;
    ASSERT_EQ((*cut.model())->missing().count(), static_cast<int64_t>(whole_.size() - length));
    ASSERT_EQ((*cut.model())->vocabulary().tokens.size(), 10u);
  }
}

TEST_F(TruncatedGgufTest, WeightsOfEveryLengthAreRefusedWithWhatIsMissing) {
  for (size_t length = 0; length < whole_.size(); ++length) {
    const Opened cut(whole_.substr(0, length), GgufExtent::kWhole);
    ASSERT_EQ(cut.model().status().code(), absl::StatusCode::kDataLoss) << length;
    if (length < table_end_) continue;
    ASSERT_THAT(cut.model().status().message(),
                AllOf(HasSubstr("cut.gguf: tensor '"), HasSubstr("download it again"),
                      HasSubstr(absl::StrCat(" ", whole_.size() - length, " bytes ("))))
        << length;
  }
}

TEST_F(TruncatedGgufTest, AWholeFileLacksNothing) {
  const Opened metadata(whole_, GgufExtent::kMetadata);
  ASSERT_TRUE(metadata.model().ok()) << metadata.model().status();
  EXPECT_EQ((*metadata.model())->missing(), Bytes(0));
  EXPECT_EQ(Everything(metadata.spec()), Everything(full_.spec()));
}

TEST_F(TruncatedGgufTest, RopeFactorsAreLeftOutOnlyWhereTheyAreCutOff) {
  RawGguf scaled = TinyLlama();
  scaled.AddTensor("rope_freqs.weight", {2});  // the last of the file
  const std::string bytes = scaled.Bytes();
  const Opened whole(bytes, GgufExtent::kMetadata);
  ASSERT_TRUE(whole.model().ok()) << whole.model().status();
  EXPECT_EQ(whole.spec().rope.frequency_factors, (std::vector<float>{0.5f, 0.5f}));
  const Opened cut(bytes.substr(0, TableEnd(scaled)), GgufExtent::kMetadata);
  ASSERT_TRUE(cut.model().ok()) << cut.model().status();
  EXPECT_TRUE(cut.spec().rope.frequency_factors.empty());
  EXPECT_EQ(FingerprintOf(cut.spec()), FingerprintOf(whole.spec()));
}

TEST_F(TruncatedGgufTest, OffsetsThatNoFileHasAreDamageAndNotMissingData) {
  RawGguf lying = TinyLlama();
  for (const int shift : {46, 62}) {
    lying.tensors.back().offset = uint64_t{1} << shift;
    const Opened opened(lying.Bytes(), GgufExtent::kMetadata);
    EXPECT_EQ(opened.model().status().code(), absl::StatusCode::kDataLoss) << shift;
    EXPECT_THAT(opened.model().status().message(), HasSubstr("'output_norm.weight'")) << shift;
  }
}

TEST_F(TruncatedGgufTest, VocabulariesThatNoModelHasAreRefusedBeforeTheyTakeMemory) {
  RawGguf vast = TinyLlama();
  vast.tensors.front().dims = {8, uint64_t{1} << 31};
  for (RawEntry& t : vast.tensors) t.offset += uint64_t{1} << 37;
  vast.tensors.front().offset = 0;
  const Opened opened(vast.Bytes().substr(0, TableEnd(vast)), GgufExtent::kMetadata);
  EXPECT_EQ(opened.model().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(opened.model().status().message()), HasSubstr("vocabulary of at most"));
}

TEST_F(TruncatedGgufTest, TensorsThatOverlapAreRefusedWithoutTheirDataToo) {
  RawGguf overlapping = TinyLlama();
  overlapping.tensors.back().offset = 0;
  const Opened opened(overlapping.Bytes().substr(0, TableEnd(overlapping)), GgufExtent::kMetadata);
  EXPECT_THAT(opened.model().status().message(), HasSubstr("overlaps"));
}

}  // namespace
}  // namespace millrace
