// Token data sets for tests, written with plain HDF5 calls, independently of the project's writer.
#ifndef LONGSPAN_TESTS_RUNTIME_TOKEN_DATA_H_
#define LONGSPAN_TESTS_RUNTIME_TOKEN_DATA_H_

#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace longspan {

struct TokenData {
  std::vector<int32_t> tokens;
  std::vector<uint64_t> offsets = {0};
  int64_t vocabulary = 300;
  int64_t version = 1;
  std::string format = "longspan-tokens";
  std::string tokenizer_kind;  // "": no attribute
  std::string tokenizer;
  int width = 2;  // bytes
  bool chunked = false, big_endian = false, latest_format = false;

  void Add(const std::vector<int32_t>& document) {
    tokens.insert(tokens.end(), document.begin(), document.end());
    offsets.push_back(tokens.size());
  }
};

// Documents of 0 to maximum_length tokens.
inline TokenData RandomTokenData(int documents, int maximum_length, int vocabulary, int seed) {
  std::mt19937 random(seed);
  TokenData data;
  data.vocabulary = vocabulary;
  for (int d = 0; d < documents; ++d) {
    std::vector<int32_t> document(random() % (maximum_length + 1));
    for (int32_t& id : document) id = static_cast<int32_t>(random() % vocabulary);
    data.Add(document);
  }
  return data;
}

inline void WriteTokenData(const std::string& path, const TokenData& data) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  if (data.latest_format) H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
  ASSERT_GE(file, 0);
  const auto dataset = [&](const char* name, hid_t stored, hid_t memory, hsize_t count,
                           const void* values, bool chunked) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk = std::min<hsize_t>(count, 64);
    if (chunked) {
      H5Pset_chunk(creation, 1, &chunk);
      H5Pset_deflate(creation, 4);
    }
    const hid_t space = H5Screate_simple(1, &count, nullptr);
    const hid_t id = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    ASSERT_GE(id, 0);
    ASSERT_GE(H5Dwrite(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
    H5Dclose(id);
    H5Sclose(space);
    H5Pclose(creation);
  };
  const auto attribute = [&](const char* name, hid_t type, const void* value) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t id = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ASSERT_GE(H5Awrite(id, type, value), 0);
    H5Aclose(id);
    H5Sclose(space);
  };
  const auto text = [&](const char* name, const std::string& value) {  // as h5py writes strings
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    const char* characters = value.c_str();
    attribute(name, type, &characters);
    H5Tclose(type);
  };

  // -1 stands for an id that no int32 holds.
  std::vector<uint32_t> tokens(data.tokens.begin(), data.tokens.end());
  const hid_t types[] = {H5T_STD_U16LE, H5T_STD_U16BE, H5T_STD_U32LE, H5T_STD_U32BE};
  dataset("tokens", types[(data.width == 4) * 2 + data.big_endian], H5T_NATIVE_UINT32,
          tokens.size(), tokens.data(), data.chunked);
  dataset("offsets", H5T_STD_U64LE, H5T_NATIVE_UINT64, data.offsets.size(), data.offsets.data(),
          data.chunked);
  if (!data.tokenizer.empty()) {
    dataset("tokenizer", H5T_STD_U8LE, H5T_NATIVE_UINT8, data.tokenizer.size(),
            data.tokenizer.data(), false);
  }
  text("format", data.format);
  if (!data.tokenizer_kind.empty()) text("tokenizer_kind", data.tokenizer_kind);
  text("made_by", "a test; readers ignore what they do not know");
  attribute("version", H5T_NATIVE_INT64, &data.version);
  attribute("vocab_size", H5T_NATIVE_INT64, &data.vocabulary);
  const int32_t eos = static_cast<int32_t>(data.vocabulary - 1);
  attribute("eos", H5T_NATIVE_INT32, &eos);
  H5Fclose(file);
  H5Pclose(access);
}

}  // namespace longspan

#endif  // LONGSPAN_TESTS_RUNTIME_TOKEN_DATA_H_
