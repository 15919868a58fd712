#include "kernels/device/tensor_view.h"

#include <vector>

#include "gtest/gtest.h"

namespace longspan {
namespace {

TEST(TensorViewTest, SlicesAndSplitsTheLastDimensionOfStridedRows) {
  std::vector<float> values(6 * 10);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const TensorView matrix = TensorView::Of(values.data(), {6, 10});
  const TensorView columns = matrix.Slice(1, 4, 8);
  EXPECT_EQ(columns.dim(1), 4);
  EXPECT_EQ(columns.stride(0), 10);
  EXPECT_FALSE(columns.contiguous());
  EXPECT_EQ(*columns.data<float>(), 4.0f);

  const TensorView heads = columns.Reshape({6, 2, 2});
  EXPECT_EQ(heads.stride(0), 10);
  EXPECT_EQ(heads.stride(1), 2);
  EXPECT_EQ(heads.Slice(0, 2, 3).Slice(1, 1, 2).data<float>()[1], 27.0f);
  EXPECT_EQ(heads.ToString(), "f32[6, 2, 2]");
}

TEST(TensorViewTest, OneRowIsContiguousWhateverItsStride) {
  std::vector<float> values(20);
  EXPECT_TRUE(TensorView::Of(values.data(), {2, 10}).Slice(1, 0, 5).Slice(0, 1, 2).contiguous());
  EXPECT_TRUE(TensorView().empty());
}

TEST(TensorViewDeathTest, ChecksDtypeBoundsAndReshape) {
  std::vector<float> values(20);
  const TensorView view = TensorView::Of(values.data(), {2, 10});
  EXPECT_DEATH(view.data<int32_t>(), "dtype");
  EXPECT_DEATH(view.Slice(1, 4, 11), "outside");
  EXPECT_DEATH(view.Slice(1, 0, 5).Reshape({10}), "strided");
  EXPECT_DEATH(view.Reshape({3, 7}), "number of elements");
}

}  // namespace
}  // namespace longspan
