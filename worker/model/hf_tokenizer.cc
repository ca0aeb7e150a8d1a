#include "worker/model/hf_tokenizer.h"

#include <sys/stat.h>

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/json_file.h"
#include "worker/model/vocabulary_rules.h"
#include "worker/weights/file_reader.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr int64_t kMaxTokens = 1 << 24;
constexpr char kSpace[] = "▁";  // U+2581, SentencePiece's space

bool Exists(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0;
}

// An optional companion file: an empty object when there is none.
absl::StatusOr<json> ReadOptional(const std::string& path) {
  if (!Exists(path)) return json::object();
  return ReadJsonObject(path);
}

// "<0x0A>"
bool IsByteToken(const std::string& token) {
  auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return token.size() == 6 && absl::StartsWith(token, "<0x") && hex(token[3]) && hex(token[4]) &&
         token[5] == '>';
}

absl::Status Place(const JsonFields& where, const std::string& token, int64_t id, TokenType type,
                   std::map<int64_t, std::pair<std::string, TokenType>>& slots) {
  if (id < 0 || id >= kMaxTokens) {
    return where.Error("vocab",
                       absl::StrCat("token \"", token, "\" has id ", id, ", out of range"));
  }
  auto [it, fresh] = slots.emplace(id, std::pair(token, type));
  if (!fresh && it->second.first != token) {
    return where.Error("vocab", absl::StrCat("tokens \"", it->second.first, "\" and \"", token,
                                             "\" both have id ", id));
  }
  it->second.second = type;
  return absl::OkStatus();
}

// `model.vocab` and `added_tokens`, in the order of their ids; ids that nobody has become unused.
absl::Status ReadTokens(const JsonFields& file, const JsonFields& model, bool byte_fallback,
                        Vocabulary& vocabulary) {
  std::map<int64_t, std::pair<std::string, TokenType>> slots;
  const json* vocab = model.Find("vocab");
  if (vocab == nullptr || !vocab->is_object()) return model.Error("vocab", "is not an object");
  for (const auto& [token, id] : vocab->items()) {
    if (!id.is_number_integer()) {
      return model.Error("vocab", absl::StrCat("token \"", token, "\" has no integer id"));
    }
    const TokenType type =
        byte_fallback && IsByteToken(token) ? TokenType::kByte : TokenType::kNormal;
    MILLRACE_RETURN_IF_ERROR(Place(model, token, id.get<int64_t>(), type, slots));
  }
  if (const json* added = file.Find("added_tokens"); added != nullptr) {
    if (!added->is_array()) return file.Error("added_tokens", "is not an array");
    for (const json& entry : *added) {
      if (!entry.is_object()) return file.Error("added_tokens", "holds something not an object");
      const JsonFields fields(absl::StrCat(file.file(), ": 'added_tokens'"), entry);
      MILLRACE_ASSIGN_OR_RETURN(int64_t id, fields.RequiredInteger("id", 0, kMaxTokens - 1));
      MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> content, fields.String("content"));
      MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> special, fields.Bool("special"));
      if (!content) return fields.Error("content", "is missing");
      const TokenType type =
          special.value_or(false) ? TokenType::kControl : TokenType::kUserDefined;
      MILLRACE_RETURN_IF_ERROR(Place(fields, *content, id, type, slots));
    }
  }
  if (slots.empty()) return model.Error("vocab", "is empty");
  const int64_t count = slots.rbegin()->first + 1;
  // Holes are few in real files; a lone huge id is a damaged one.
  if (count > 2 * static_cast<int64_t>(slots.size()) + 1024) {
    return model.Error(
        "vocab", absl::StrCat("ids reach ", count - 1, " with only ", slots.size(), " tokens"));
  }
  for (int64_t id = 0; id < count; ++id) {
    auto it = slots.find(id);
    const bool used = it != slots.end();
    vocabulary.tokens.push_back(used ? it->second.first : absl::StrCat("[PAD", id, "]"));
    vocabulary.types.push_back(used ? it->second.second : TokenType::kUnused);
  }
  return absl::OkStatus();
}

// Both forms: "a b" and ["a", "b"].
absl::Status ReadMerges(const JsonFields& model, Vocabulary& vocabulary) {
  const json* merges = model.Find("merges");
  if (merges == nullptr || !merges->is_array()) return model.Error("merges", "is not an array");
  vocabulary.merges.reserve(merges->size());
  for (const json& merge : *merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      vocabulary.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    auto pair = merge.is_string() ? SplitMerge(merge.get<std::string>()) : std::nullopt;
    if (!pair) {
      return model.Error(
          "merges", absl::StrCat("merge ", vocabulary.merges.size(), " is not a pair of pieces"));
    }
    vocabulary.merges.push_back(*std::move(pair));
  }
  return absl::OkStatus();
}

// SentencePiece merges the neighbours whose joined piece has the best score; BPE those whose merge
// comes first. With a piece's score the negative rank of the first merge that makes it, both choose
// alike. Pieces that no merge makes come last.
void ScoresFromMerges(Vocabulary& vocabulary) {
  std::map<std::string, float> score;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto& [left, right] = vocabulary.merges[rank];
    score.emplace(left + right, -static_cast<float>(rank));
  }
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    auto it = score.find(vocabulary.tokens[i]);
    const bool ordinary = vocabulary.types[i] == TokenType::kNormal;
    vocabulary.scores.push_back(it != score.end() ? it->second : (ordinary ? -1e9f : 0.0f));
  }
  vocabulary.merges.clear();
}

// Whether a space is put before the text: normalizer Prepend, or pre-tokenizer Metaspace.
bool HasSpacePrefix(const json& node) {
  if (!node.is_object()) return false;
  const std::string type = node.value("type", json()).is_string() ? node["type"] : "";
  if (type == "Prepend") return node.value("prepend", json()) == kSpace;
  if (type == "Metaspace") {
    if (auto it = node.find("prepend_scheme"); it != node.end()) return *it != "never";
    auto it = node.find("add_prefix_space");
    return it == node.end() || *it != false;
  }
  for (const char* list : {"normalizers", "pretokenizers"}) {
    auto it = node.find(list);
    if (it == node.end() || !it->is_array()) continue;
    for (const json& inner : *it) {
      if (HasSpacePrefix(inner)) return true;
    }
  }
  return false;
}

// True when the template starts with a special token named `bos`.
bool TemplateStartsWith(const json& node, const std::string& bos) {
  if (!node.is_object()) return false;
  if (auto list = node.find("processors"); list != node.end() && list->is_array()) {
    for (const json& inner : *list) {
      if (TemplateStartsWith(inner, bos)) return true;
    }
  }
  auto single = node.find("single");
  if (single == node.end() || !single->is_array() || single->empty()) return false;
  const json& first = (*single)[0];
  if (!first.is_object()) return false;
  auto special = first.find("SpecialToken");
  return special != first.end() && special->is_object() && special->value("id", json()) == bos;
}

TokenId FindToken(const Vocabulary& vocabulary, const std::string& token) {
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.tokens[i] == token) return static_cast<TokenId>(i);
  }
  return -1;
}

// The companions of tokenizer.json.
struct Companions {
  json tokenizer_config, generation_config, config;
};

// "bos_token": a string, or an object with "content"; -1 when absent or unknown.
TokenId NamedToken(const json& tokenizer_config, const char* key, const Vocabulary& vocabulary) {
  auto it = tokenizer_config.find(key);
  if (it == tokenizer_config.end()) return -1;
  if (it->is_string()) return FindToken(vocabulary, it->get<std::string>());
  if (it->is_object() && it->value("content", json()).is_string()) {
    return FindToken(vocabulary, (*it)["content"].get<std::string>());
  }
  return -1;
}

// "eos_token_id": a number or a list of them; those inside the vocabulary.
std::vector<TokenId> ListedIds(const json& config, const char* key, const Vocabulary& vocabulary) {
  std::vector<TokenId> ids;
  auto take = [&](const json& v) {
    if (!v.is_number_unsigned() || v.get<uint64_t>() >= vocabulary.tokens.size()) return;
    ids.push_back(static_cast<TokenId>(v.get<uint64_t>()));
  };
  auto it = config.find(key);
  if (it == config.end()) return ids;
  if (!it->is_array()) take(*it);
  if (it->is_array()) {
    for (const json& v : *it) take(v);
  }
  return ids;
}

TokenId SpecialId(const Companions& c, const std::string& name, const Vocabulary& vocabulary) {
  const TokenId named = NamedToken(c.tokenizer_config, name.c_str(), vocabulary);
  if (named >= 0) return named;
  for (const json* config : {&c.generation_config, &c.config}) {
    const std::vector<TokenId> ids = ListedIds(*config, (name + "_id").c_str(), vocabulary);
    if (!ids.empty()) return ids[0];
  }
  return -1;
}

void SetSpecialIds(const Companions& c, Vocabulary& vocabulary) {
  vocabulary.bos = SpecialId(c, "bos_token", vocabulary);
  vocabulary.eos = SpecialId(c, "eos_token", vocabulary);
  vocabulary.padding = SpecialId(c, "pad_token", vocabulary);
  vocabulary.unknown = NamedToken(c.tokenizer_config, "unk_token", vocabulary);
  std::vector<TokenId> ends = {vocabulary.eos};
  for (const json* config : {&c.generation_config, &c.config}) {
    for (TokenId id : ListedIds(*config, "eos_token_id", vocabulary)) ends.push_back(id);
  }
  CollectEndOfGeneration(ends, vocabulary);
}

absl::Status SetFlags(const std::string& directory, const json& tokenizer, const Companions& c,
                      Vocabulary& vocabulary) {
  const JsonFields config(absl::StrCat(directory, "/tokenizer_config.json"), c.tokenizer_config);
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> add_bos, config.Bool("add_bos_token"));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> add_eos, config.Bool("add_eos_token"));
  const bool has_bos = vocabulary.bos >= 0;
  const bool in_template = has_bos && TemplateStartsWith(tokenizer.value("post_processor", json()),
                                                         vocabulary.tokens[vocabulary.bos]);
  vocabulary.add_bos = has_bos && add_bos.value_or(in_template || AddsBosByConvention(vocabulary));
  vocabulary.add_eos = add_eos.value_or(false);

  const std::string jinja = absl::StrCat(directory, "/chat_template.jinja");
  if (Exists(jinja)) {
    MILLRACE_ASSIGN_OR_RETURN(auto reader, OpenMappedFile(jinja));
    const auto bytes = reader->Map();
    vocabulary.chat_template.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  } else if (const json* chat = config.Find("chat_template");
             chat != nullptr && chat->is_string()) {
    vocabulary.chat_template = chat->get<std::string>();
  }
  return absl::OkStatus();
}

// Kind, tokens, merges or scores from tokenizer.json itself.
absl::StatusOr<Vocabulary> ReadTokenizer(const JsonFields& file, const json& tokenizer) {
  Vocabulary vocabulary;
  MILLRACE_ASSIGN_OR_RETURN(std::optional<JsonFields> model, file.Object("model"));
  if (!model) return file.Error("model", "is missing");
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> type, model->String("type"));
  // Files of old libraries name no type; those with merges are BPE.
  if (type.value_or(model->Find("merges") != nullptr ? "BPE" : "?") != "BPE") {
    return model->Unimplemented(
        "type", absl::StrCat("'", type.value_or("?"), "' is not supported, only BPE"));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> byte_fallback, model->Bool("byte_fallback"));
  const bool pieces = byte_fallback.value_or(false);
  vocabulary.kind = pieces ? VocabularyKind::kSentencePiece : VocabularyKind::kByteLevelBpe;
  MILLRACE_RETURN_IF_ERROR(ReadTokens(file, *model, pieces, vocabulary));
  MILLRACE_RETURN_IF_ERROR(ReadMerges(*model, vocabulary));
  if (pieces) {
    ScoresFromMerges(vocabulary);
    MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> unknown, model->String("unk_token"));
    if (unknown) vocabulary.unknown = FindToken(vocabulary, *unknown);
    if (vocabulary.unknown >= 0) vocabulary.types[vocabulary.unknown] = TokenType::kUnknown;
    vocabulary.add_space_prefix = HasSpacePrefix(tokenizer.value("normalizer", json())) ||
                                  HasSpacePrefix(tokenizer.value("pre_tokenizer", json()));
    return vocabulary;
  }
  auto pre = RecognisePreTokenizer(tokenizer.value("pre_tokenizer", json()));
  if (!pre.ok()) return Annotate(pre.status(), file.file());
  vocabulary.pre_tokenizer = *pre;
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> ignore, model->Bool("ignore_merges"));
  vocabulary.ignore_merges = ignore.value_or(IgnoresMergesByConvention(vocabulary));
  return vocabulary;
}

}  // namespace

absl::StatusOr<Vocabulary> ReadHfVocabulary(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/tokenizer.json");
  if (!Exists(path) && Exists(absl::StrCat(directory, "/tokenizer.model"))) {
    return absl::UnimplementedError(absl::StrCat(
        directory,
        ": holds tokenizer.model but no tokenizer.json; save the tokenizer again in its "
        "fast form, or convert the model to GGUF"));
  }
  MILLRACE_ASSIGN_OR_RETURN(json tokenizer, ReadJsonObject(path));
  Companions c;
  MILLRACE_ASSIGN_OR_RETURN(c.tokenizer_config, ReadOptional(directory + "/tokenizer_config.json"));
  MILLRACE_ASSIGN_OR_RETURN(c.generation_config,
                            ReadOptional(directory + "/generation_config.json"));
  MILLRACE_ASSIGN_OR_RETURN(c.config, ReadOptional(directory + "/config.json"));
  const JsonFields file(path, tokenizer);
  MILLRACE_ASSIGN_OR_RETURN(Vocabulary vocabulary, ReadTokenizer(file, tokenizer));
  const TokenId unknown = vocabulary.unknown;
  SetSpecialIds(c, vocabulary);
  if (unknown >= 0) vocabulary.unknown = unknown;
  MILLRACE_RETURN_IF_ERROR(SetFlags(directory, tokenizer, c, vocabulary));
  return vocabulary;
}

}  // namespace millrace
