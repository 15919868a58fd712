#include "checkpoint/rank_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "checkpoint/checksum.h"
#include "scratch_directory.h"

namespace longspan {
namespace {

// Unused bytes that HDF5 may leave at the end of its last object.
constexpr int64_t kSlackBytes = 512;

struct Regions {
  std::vector<StateRegion> list;
  std::vector<std::vector<char>> memory;
  void Add(const std::string& group, const std::string& tensor, DType dtype,
           std::vector<int64_t> shape, int64_t begin, int64_t end) {
    memory.emplace_back((end - begin) * SizeOf(dtype));
    for (size_t i = 0; i < memory.back().size(); ++i) {
      memory.back()[i] = static_cast<char>(i * 31 + list.size() * 7 + i / 251);
    }
    list.push_back({group, tensor, dtype, std::move(shape), begin, end, memory.back().data()});
  }
};

Regions AllDTypes() {
  Regions regions;
  regions.Add("/parameters", "f32", DType::kF32, {3, 5}, 2, 15);
  regions.Add("/parameters", "nothing here", DType::kF32, {3, 5}, 4, 4);
  regions.Add("/parameters", "bf16", DType::kBF16, {7}, 0, 7);
  regions.Add("/optimizer/first_moment", "f64", DType::kF64, {}, 0, 1);
  regions.Add("/optimizer/first_moment", "u8", DType::kU8, {1001}, 0, 1001);
  regions.Add("/counts", "i32", DType::kI32, {3}, 0, 3);
  regions.Add("/counts", "i64", DType::kI64, {3}, 1, 2);
  regions.Add("/counts", "u16", DType::kU16, {5}, 0, 5);
  regions.Add("/counts", "u32", DType::kU32, {5}, 0, 5);
  regions.Add("/counts", "u64", DType::kU64, {5}, 0, 5);
  return regions;
}

const RankFileIdentity kIdentity{"run", 3, 1, 2};

// Offsets follow each other from a power of two on, up to the end of the file.
void ExpectGapFree(const RankFileLayout& layout, const std::vector<StateRegion>& regions) {
  EXPECT_GE(layout.data_begin, 4096);
  EXPECT_EQ(layout.data_begin & (layout.data_begin - 1), 0) << layout.data_begin;
  EXPECT_EQ(static_cast<int64_t>(layout.head.size()), layout.data_begin);
  int64_t next = layout.data_begin;
  for (size_t i = 0; i < regions.size(); ++i) {
    if (RegionElements(regions[i]) == 0) {
      EXPECT_EQ(layout.offsets[i], -1);
      continue;
    }
    EXPECT_EQ(layout.offsets[i], next) << regions[i].tensor;
    next += RegionBytes(regions[i]);
  }
  EXPECT_EQ(layout.bytes, next);
}

RankFileSums Write(const RankFileLayout& layout, const std::vector<StateRegion>& regions,
                   const std::string& path) {
  auto file = PosixFileSystem().Create(path);
  EXPECT_TRUE(file.ok()) << file.status();
  MemoryTable memory;
  auto pool = HostPool::Create(memory, 2, kPieceBytes);
  EXPECT_TRUE(pool.ok()) << pool.status();
  auto sums = WriteRankFile(layout, regions, **file, **pool);
  EXPECT_TRUE(sums.ok()) << sums.status();
  return sums.ok() ? *sums : RankFileSums();
}

TEST(RankFileTest, RawDataAreGapFreeFromAPowerOfTwo) {
  const Regions regions = AllDTypes();
  const auto layout = BuildRankFileLayout(kIdentity, regions.list);
  ASSERT_TRUE(layout.ok()) << layout.status();
  ExpectGapFree(*layout, regions.list);
}

TEST(RankFileTest, ManyTensorsAndTheSmallestBlockThatHoldsThem) {
  for (int tensors : {1, 3, 10, 50, 200, 1000}) {
    Regions regions;
    for (int i = 0; i < tensors; ++i) {
      regions.Add(i % 2 == 0 ? "/parameters" : "/optimizer/second_moment",
                  "model.layers." + std::to_string(i) + ".self_attention.query_projection.weight",
                  DType::kF32, {3, 1 + i % 5}, 0, 1 + i % 5);
    }
    const auto layout = BuildRankFileLayout(kIdentity, regions.list);
    ASSERT_TRUE(layout.ok()) << layout.status();
    ExpectGapFree(*layout, regions.list);
    if (layout->data_begin > 4096) {
      // The metadata need more than the next smaller power of two.
      const std::string& head = layout->head;
      EXPECT_NE(head.find_last_not_of('\0'), std::string::npos);
      EXPECT_GE(static_cast<int64_t>(head.find_last_not_of('\0')) + kSlackBytes,
                layout->data_begin / 2)
          << tensors;
    }
  }
}

TEST(RankFileTest, SizesBeyond32BitsTakeNoMemory) {
  // Only the layout is made: 6 TB of tensors, nothing allocated for them.
  char byte = 0;
  std::vector<StateRegion> regions;
  for (int i = 0; i < 3; ++i) {
    regions.push_back({"/parameters",
                       "w" + std::to_string(i),
                       DType::kF32,
                       {1000000, 1000000},
                       0,
                       500000000001,
                       &byte});
  }
  const auto layout = BuildRankFileLayout(kIdentity, regions);
  ASSERT_TRUE(layout.ok()) << layout.status();
  ExpectGapFree(*layout, regions);
}

TEST(RankFileTest, Hdf5ReadsItBack) {
  ScratchDirectory scratch;
  const Regions regions = AllDTypes();
  const auto layout = BuildRankFileLayout(kIdentity, regions.list);
  ASSERT_TRUE(layout.ok()) << layout.status();
  Write(*layout, regions.list, scratch / "rank.h5");

  const hid_t file = H5Fopen((scratch / "rank.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  for (size_t i = 0; i < regions.list.size(); ++i) {
    const StateRegion& region = regions.list[i];
    const std::string name = region.group + "/" + region.tensor;
    if (RegionElements(region) == 0) {
      EXPECT_EQ(H5Lexists(file, name.c_str(), H5P_DEFAULT), 0) << name;
      continue;
    }
    const hid_t set = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
    ASSERT_GE(set, 0) << name;
    const hid_t type = H5Dget_type(set);
    EXPECT_EQ(static_cast<int64_t>(H5Tget_size(type)), SizeOf(region.dtype)) << name;
    std::vector<char> bytes(RegionBytes(region));
    EXPECT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), 0);
    EXPECT_EQ(bytes, regions.memory[i]) << name;
    for (const auto& [attribute, value] :
         {std::pair("flat_begin", region.flat_begin), std::pair("flat_end", region.flat_end)}) {
      const hid_t a = H5Aopen(set, attribute, H5P_DEFAULT);
      int64_t read = -1;
      EXPECT_GE(H5Aread(a, H5T_NATIVE_INT64, &read), 0);
      EXPECT_EQ(read, value) << name << " " << attribute;
      H5Aclose(a);
    }
    const hid_t shape = H5Aopen(set, "global_shape", H5P_DEFAULT);
    const hid_t space = H5Aget_space(shape);
    ASSERT_EQ(H5Sget_simple_extent_npoints(space),
              static_cast<hssize_t>(region.global_shape.size()));
    std::vector<int64_t> dims(region.global_shape.size());
    if (!dims.empty()) {
      EXPECT_GE(H5Aread(shape, H5T_NATIVE_INT64, dims.data()), 0);
    }
    EXPECT_EQ(dims, region.global_shape);
    H5Sclose(space);
    H5Aclose(shape);
    const hid_t tensor = H5Aopen(set, "tensor", H5P_DEFAULT);
    const hid_t text = H5Aget_type(tensor);
    std::string read(H5Tget_size(text), '\0');
    EXPECT_GE(H5Aread(tensor, text, read.data()), 0);
    EXPECT_STREQ(read.c_str(), region.tensor.c_str());
    H5Tclose(text);
    H5Aclose(tensor);
    H5Tclose(type);
    H5Dclose(set);
  }
  H5Fclose(file);
}

TEST(RankFileTest, Bf16IsTheUpperHalfOfAFloat) {
  ScratchDirectory scratch;
  const uint16_t values[] = {0x3f80, 0xc040, 0x0000, 0x7f80};  // 1, -3, 0, infinity
  std::vector<StateRegion> regions = {{"/parameters", "w", DType::kBF16, {4}, 0, 4, nullptr}};
  uint16_t memory[4];
  std::memcpy(memory, values, sizeof(values));
  regions[0].data = memory;
  const auto layout = BuildRankFileLayout(kIdentity, regions);
  ASSERT_TRUE(layout.ok()) << layout.status();
  Write(*layout, regions, scratch / "rank.h5");
  const hid_t file = H5Fopen((scratch / "rank.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t set = H5Dopen2(file, "/parameters/w", H5P_DEFAULT);
  float read[4] = {};
  EXPECT_GE(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, read), 0);
  EXPECT_EQ(read[0], 1.0f);
  EXPECT_EQ(read[1], -3.0f);
  EXPECT_EQ(read[2], 0.0f);
  EXPECT_EQ(read[3], std::numeric_limits<float>::infinity());
  H5Dclose(set);
  H5Fclose(file);
}

TEST(RankFileTest, LargeFilesCrossWritesAndChunks) {
  // About 45 MB in regions that end nowhere near a border; one spans whole writes.
  ScratchDirectory scratch;
  Regions regions;
  regions.Add("/parameters", "a", DType::kU8, {5000003}, 0, 5000003);
  regions.Add("/parameters", "b", DType::kU8, {40000007}, 0, 40000007);
  regions.Add("/parameters", "c", DType::kU8, {3}, 0, 3);
  const auto layout = BuildRankFileLayout(kIdentity, regions.list);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const RankFileSums sums = Write(*layout, regions.list, scratch / "rank.h5");
  const auto bytes = PosixFileSystem().ReadAll(scratch / "rank.h5");
  ASSERT_TRUE(bytes.ok());
  ASSERT_EQ(static_cast<int64_t>(bytes->size()), layout->bytes);
  EXPECT_EQ(bytes->compare(0, layout->head.size(), layout->head), 0);
  for (size_t i = 0; i < regions.list.size(); ++i) {
    const auto& memory = regions.memory[i];
    EXPECT_EQ(std::memcmp(bytes->data() + layout->offsets[i], memory.data(), memory.size()), 0);
    EXPECT_EQ(sums.region_crc64[i],
              ExtendCrc64(0, memory.data(), static_cast<int64_t>(memory.size())));
  }
  ASSERT_EQ(static_cast<int64_t>(sums.chunk_crc32c.size()),
            (layout->bytes + kChunkBytes - 1) / kChunkBytes);
  for (size_t c = 0; c < sums.chunk_crc32c.size(); ++c) {
    const int64_t begin = static_cast<int64_t>(c) * kChunkBytes;
    EXPECT_EQ(sums.chunk_crc32c[c],
              Crc32c(bytes->data() + begin, std::min(kChunkBytes, layout->bytes - begin)));
  }
}

TEST(RankFileTest, ARankWithoutDataHasAFile) {
  ScratchDirectory scratch;
  std::vector<StateRegion> regions = {{"/parameters", "w", DType::kF32, {4}, 4, 4, nullptr}};
  const auto layout = BuildRankFileLayout(kIdentity, regions);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const RankFileSums sums = Write(*layout, regions, scratch / "rank.h5");
  EXPECT_EQ(sums.chunk_crc32c.size(), 1u);
  const hid_t file = H5Fopen((scratch / "rank.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  EXPECT_GE(file, 0);
  H5Fclose(file);
}

TEST(RankFileTest, TheSameRegionsGiveTheSameBytes) {
  const Regions regions = AllDTypes();
  const auto a = BuildRankFileLayout(kIdentity, regions.list);
  const auto b = BuildRankFileLayout(kIdentity, regions.list);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->head, b->head);
}

TEST(RankFileTest, WrongRegionsAreNamed) {
  char byte = 0;
  const StateRegion good = {"/parameters", "w", DType::kF32, {4}, 0, 4, &byte};
  std::vector<StateRegion> wrong(10, good);
  wrong[0].group = "parameters";
  wrong[1].group = "/";
  wrong[2].tensor = "a/w";
  wrong[3].flat_end = 5;
  wrong[4].flat_begin = -1;
  wrong[5].data = nullptr;
  wrong[6].global_shape = {-4};
  wrong[7].global_shape = {int64_t{1} << 40, int64_t{1} << 40};
  wrong[8].tensor = "";
  wrong[9].group = "/a//w";
  for (size_t i = 0; i < wrong.size(); ++i) {
    const auto layout = BuildRankFileLayout(kIdentity, {wrong[i]});
    EXPECT_TRUE(absl::IsInvalidArgument(layout.status())) << i << ": " << layout.status();
    EXPECT_NE(layout.status().message().find(wrong[i].tensor), absl::string_view::npos);
  }
  EXPECT_TRUE(absl::IsInvalidArgument(BuildRankFileLayout(kIdentity, {good, good}).status()));
}

}  // namespace
}  // namespace longspan
