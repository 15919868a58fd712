// A stand-in for libcudnn: graphs of the backend interface are run on the CPU, operation by
// operation, each on whole tensors. It knows the operations that kernels/cuda/cudnn_attention.cc
// uses, and refuses others. What lies outside of a document (behind the counts that matrix products
// are given) is never read or written and is NaN between operations, so a graph that lets it in
// shows. Documents of lengths that kernels of the real one fail on (zero, or half a tile behind
// whole ones: length % 128 = 64) come out as NaN. Which graphs a real cuDNN has an engine for is
// for kernels.attention_plans to say.
#include <cudnn.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <vector>

extern "C" int LongspanStandInEnqueue(cudaStream_t stream, void (*work)(void*), void* data);

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Plan;

// Any descriptor: its attributes as they were set.
struct Descriptor {
  struct Attribute {
    int64_t count = 0;
    std::vector<char> bytes;
  };
  cudnnBackendDescriptorType_t type;
  std::map<int, Attribute> attributes;
  std::shared_ptr<Plan> plan;  // of engine configurations and execution plans

  bool Has(cudnnBackendAttributeName_t name) const { return attributes.count(name) > 0; }
  template <typename T>
  T Get(cudnnBackendAttributeName_t name, T otherwise = T()) const {
    const auto found = attributes.find(name);
    if (found == attributes.end()) return otherwise;
    T value;
    std::memcpy(&value, found->second.bytes.data(), sizeof(T));
    return value;
  }
  template <typename T>
  std::vector<T> All(cudnnBackendAttributeName_t name) const {
    const auto found = attributes.find(name);
    if (found == attributes.end()) return {};
    std::vector<T> values(found->second.count);
    std::memcpy(values.data(), found->second.bytes.data(), values.size() * sizeof(T));
    return values;
  }
  const Descriptor* Other(cudnnBackendAttributeName_t name) const {
    return static_cast<const Descriptor*>(Get<void*>(name, nullptr));
  }
};

size_t BytesOf(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_CHAR:
    case CUDNN_TYPE_BOOLEAN:
      return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
      return 8;
    default:
      return 4;  // enumerations
  }
}

struct Tensor {
  int64_t id = 0;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  int64_t extents[4] = {}, strides[4] = {};
  bool is_virtual = false, by_value = false;
  int64_t offsets = 0;  // id of the tensor that says where batch entries start
  // Ids of the tensors that count the rows and columns of each batch entry; 0: all are there.
  int64_t row_counts = 0, column_counts = 0;

  int64_t elements() const { return extents[0] * extents[1] * extents[2] * extents[3]; }
  int64_t Dense(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return ((b * extents[1] + h) * extents[2] + i) * extents[3] + j;
  }
};

struct Operation {
  cudnnBackendDescriptorType_t kind;
  cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
  cudnnReduceTensorOp_t reduction = CUDNN_REDUCE_TENSOR_ADD;
  int64_t axis = 0;
  int64_t x = 0, b = 0, mask = 0, y = 0;  // ids; of a product: a, b, -, c
  int64_t m = 0, n = 0, k = 0;
  bool pads_with_zeros = false;
};

struct Plan {
  std::map<int64_t, Tensor> tensors;
  std::vector<Operation> operations;
  bool backward = false;  // has reshapes
};

struct Run {
  std::shared_ptr<const Plan> plan;
  cudaStream_t stream;
  std::map<int64_t, void*> memory;
  std::map<int64_t, float> scalars;
  std::map<int64_t, std::vector<float>> values;
  std::vector<bool> fails;  // of each batch entry
};

int64_t AddTensor(Plan& plan, const Descriptor* d) {
  if (d == nullptr) return 0;
  Tensor tensor;
  tensor.id = d->Get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  if (plan.tensors.count(tensor.id) > 0) return tensor.id;
  tensor.type = d->Get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  const auto extents = d->All<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS);
  const auto strides = d->All<int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
  std::copy_n(extents.begin(), 4, tensor.extents);
  std::copy_n(strides.begin(), 4, tensor.strides);
  tensor.is_virtual = d->Get<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL);
  tensor.by_value = d->Get<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE);
  tensor.offsets = AddTensor(plan, d->Other(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC));
  plan.tensors[tensor.id] = tensor;
  return tensor.id;
}

bool AddOperation(Plan& plan, const Descriptor& d) {
  Operation op{d.type};
  const auto add = [&](cudnnBackendAttributeName_t name) { return AddTensor(plan, d.Other(name)); };
  switch (d.type) {
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: {
      const Descriptor* const what = d.Other(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
      op.mode = what->Get<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
      op.axis = what->Get<int64_t>(CUDNN_ATTR_POINTWISE_AXIS, -1);
      op.x = add(CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
      op.b = add(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
      op.mask = add(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
      op.y = add(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
      break;
    }
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
      op.x = add(CUDNN_ATTR_OPERATION_MATMUL_ADESC);
      op.b = add(CUDNN_ATTR_OPERATION_MATMUL_BDESC);
      op.y = add(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
      op.m = add(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC);
      op.n = add(CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC);
      op.k = add(CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC);
      op.pads_with_zeros =
          d.Other(CUDNN_ATTR_OPERATION_MATMUL_DESC)->Has(CUDNN_ATTR_MATMUL_PADDING_VALUE);
      break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
      op.reduction = d.Other(CUDNN_ATTR_OPERATION_REDUCTION_DESC)
                         ->Get<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR);
      op.x = add(CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
      op.y = add(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
      break;
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
      op.x = add(CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
      op.y = add(CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
      plan.backward = true;
      break;
    default:
      return false;
  }
  plan.operations.push_back(op);
  return true;
}

// Rows lie further apart than columns.
bool RowsAcross(const Tensor& x) { return x.strides[2] < x.strides[3]; }

// Finds out which rows and columns there are, from what matrix products are told, until nothing new
// is learned.
void SpreadCounts(Plan& plan) {
  bool changed = true;
  const auto tell = [&](int64_t& known, int64_t counts) {
    if (known != 0 || counts == 0) return;
    known = counts;
    changed = true;
  };
  const auto unify = [&](int64_t& a, int64_t& b) {
    tell(a, b);
    tell(b, a);
  };
  while (changed) {
    changed = false;
    for (const Operation& op : plan.operations) {
      Tensor& x = plan.tensors[op.x];
      Tensor& y = plan.tensors[op.y];
      switch (op.kind) {
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: {
          Tensor& b = plan.tensors[op.b];
          tell(x.row_counts, op.m);
          tell(x.column_counts, op.k);
          tell(b.row_counts, op.k);
          tell(b.column_counts, op.n);
          tell(y.row_counts, op.m);
          tell(y.column_counts, op.n);
          break;
        }
        case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
          unify(x.row_counts, y.column_counts);
          unify(x.column_counts, y.row_counts);
          break;
        default:
          for (const int64_t other : {op.b, op.mask, op.y}) {
            if (other == 0) continue;
            Tensor& t = plan.tensors[other];
            if (t.extents[2] == x.extents[2] && t.extents[2] > 1) unify(x.row_counts, t.row_counts);
            if (t.extents[3] == x.extents[3] && t.extents[3] > 1)
              unify(x.column_counts, t.column_counts);
          }
      }
    }
    for (auto& [id, a] : plan.tensors) {
      for (auto& [other, b] : plan.tensors) {
        if (a.offsets == 0 || a.offsets != b.offsets || id == other) continue;
        unify(RowsAcross(a) ? a.column_counts : a.row_counts,
              RowsAcross(b) ? b.column_counts : b.row_counts);
      }
    }
  }
}

float Rounded(float value, cudnnDataType_t type) {
  if (type != CUDNN_DATA_BFLOAT16 || std::isnan(value)) return value;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float Read(const void* at, cudnnDataType_t type, int64_t element) {
  switch (type) {
    case CUDNN_DATA_FLOAT:
      return static_cast<const float*>(at)[element];
    case CUDNN_DATA_INT32:
      return static_cast<float>(static_cast<const int32_t*>(at)[element]);
    default: {
      const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(at)[element]) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    }
  }
}

void Write(void* at, cudnnDataType_t type, int64_t element, float value) {
  if (type == CUDNN_DATA_FLOAT) {
    static_cast<float*>(at)[element] = value;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t narrow = std::isnan(value) ? 0x7fc0u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  static_cast<uint16_t*>(at)[element] = static_cast<uint16_t>(narrow);
}

int64_t CountOf(const Run& run, int64_t counts, int64_t b, int64_t all) {
  if (counts == 0) return all;
  return std::min<int64_t>(all, static_cast<const int32_t*>(run.memory.at(counts))[b]);
}

bool Fails(const Run& run, int64_t b) {
  return b < static_cast<int64_t>(run.fails.size()) && run.fails[b];
}

int64_t PlaceOf(const Run& run, const Tensor& t, int64_t b, int64_t h, int64_t i, int64_t j) {
  const int64_t begin =
      t.offsets == 0 ? b * t.strides[0] : static_cast<const int64_t*>(run.memory.at(t.offsets))[b];
  return begin + h * t.strides[1] + i * t.strides[2] + j * t.strides[3];
}

// Calls body(b, h, i, j, whether that element is there).
template <typename Body>
void ForAll(const Run& run, const Tensor& t, const Body& body) {
  for (int64_t b = 0; b < t.extents[0]; ++b) {
    const int64_t rows = CountOf(run, t.row_counts, b, t.extents[2]);
    const int64_t columns = CountOf(run, t.column_counts, b, t.extents[3]);
    for (int64_t h = 0; h < t.extents[1]; ++h) {
      for (int64_t i = 0; i < t.extents[2]; ++i) {
        for (int64_t j = 0; j < t.extents[3]; ++j) body(b, h, i, j, i < rows && j < columns);
      }
    }
  }
}

const std::vector<float>& ValueOf(Run& run, int64_t id) {
  std::vector<float>& value = run.values[id];
  if (!value.empty()) return value;
  const Tensor& t = run.plan->tensors.at(id);
  value.assign(t.elements(), kNan);
  if (t.by_value) {
    value[0] = run.scalars.at(id);
    return value;
  }
  const void* const memory = run.memory.at(id);
  ForAll(run, t, [&](int64_t b, int64_t h, int64_t i, int64_t j, bool there) {
    if (there) value[t.Dense(b, h, i, j)] = Read(memory, t.type, PlaceOf(run, t, b, h, i, j));
  });
  return value;
}

void Finish(Run& run, const Tensor& t, std::vector<float> value, bool adds = false) {
  for (float& v : value) v = Rounded(v, t.type);
  if (!t.is_virtual) {
    void* const memory = run.memory.at(t.id);
    ForAll(run, t, [&](int64_t b, int64_t h, int64_t i, int64_t j, bool there) {
      if (!there) return;
      if (Fails(run, b)) value[t.Dense(b, h, i, j)] = kNan;
      const int64_t at = PlaceOf(run, t, b, h, i, j);
      const float old = adds ? Read(memory, t.type, at) : 0;
      Write(memory, t.type, at, old + value[t.Dense(b, h, i, j)]);
    });
  }
  run.values[t.id] = std::move(value);
}

float Apply(cudnnPointwiseMode_t mode, float x, float b, float mask) {
  switch (mode) {
    case CUDNN_POINTWISE_ADD:
      return x + b;
    case CUDNN_POINTWISE_SUB:
      return x - b;
    case CUDNN_POINTWISE_MUL:
      return x * b;
    case CUDNN_POINTWISE_DIV:
      return x / b;
    case CUDNN_POINTWISE_EXP:
      return std::exp(x);
    case CUDNN_POINTWISE_LOG:
      return std::log(x);
    case CUDNN_POINTWISE_CMP_LT:
      return x < b;
    case CUDNN_POINTWISE_CMP_GE:
      return x >= b;
    case CUDNN_POINTWISE_CMP_GT:
      return x > b;
    case CUDNN_POINTWISE_LOGICAL_AND:
      return x != 0 && b != 0;
    case CUDNN_POINTWISE_BINARY_SELECT:
      return mask != 0 ? x : b;
    default:
      return kNan;
  }
}

bool Knows(cudnnPointwiseMode_t mode) {
  return mode == CUDNN_POINTWISE_GEN_INDEX || mode == CUDNN_POINTWISE_BINARY_SELECT ||
         !std::isnan(Apply(mode, 1, 1, 1));
}

// y = f(x, b, mask) for the rows that are there; all columns, whether there or not.
template <typename Function>
std::vector<float> RowByRow(Run& run, const Tensor& y, const Tensor* const operands[3],
                            const Function& f) {
  std::vector<float> value(y.elements(), kNan);
  const float* data[3];
  for (int k = 0; k < 3; ++k) data[k] = ValueOf(run, operands[k]->id).data();
  for (int64_t b = 0; b < y.extents[0]; ++b) {
    const int64_t rows = CountOf(run, y.row_counts, b, y.extents[2]);
    for (int64_t h = 0; h < y.extents[1]; ++h) {
      for (int64_t i = 0; i < rows; ++i) {
        const float* from[3];
        int64_t step[3];
        for (int k = 0; k < 3; ++k) {
          const Tensor& t = *operands[k];
          const auto in = [&](int64_t index, int axis) { return t.extents[axis] == 1 ? 0 : index; };
          from[k] = data[k] + t.Dense(in(b, 0), in(h, 1), in(i, 2), 0);
          step[k] = t.extents[3] == 1 ? 0 : 1;
        }
        float* const to = value.data() + y.Dense(b, h, i, 0);
        for (int64_t j = 0; j < y.extents[3]; ++j)
          to[j] = f(from[0][j * step[0]], from[1][j * step[1]], from[2][j * step[2]]);
      }
    }
  }
  return value;
}

void RunPointwise(Run& run, const Operation& op) {
  const Tensor& y = run.plan->tensors.at(op.y);
  if (op.mode == CUDNN_POINTWISE_GEN_INDEX) {
    std::vector<float> value(y.elements());
    ForAll(run, y, [&](int64_t b, int64_t h, int64_t i, int64_t j, bool) {
      const int64_t index[] = {b, h, i, j};
      value[y.Dense(b, h, i, j)] = static_cast<float>(index[op.axis]);
    });
    return Finish(run, y, std::move(value));
  }
  const auto tensor = [&](int64_t id) { return &run.plan->tensors.at(id == 0 ? op.x : id); };
  const Tensor* const operands[] = {tensor(op.x), tensor(op.b), tensor(op.mask)};
  Finish(run, y, RowByRow(run, y, operands, [mode = op.mode](float x, float b, float mask) {
           return Apply(mode, x, b, mask);
         }));
}

void RunProduct(Run& run, const Operation& op) {
  const Tensor& a = run.plan->tensors.at(op.x);
  const Tensor& b = run.plan->tensors.at(op.b);
  const Tensor& c = run.plan->tensors.at(op.y);
  const std::vector<float>& as = ValueOf(run, a.id);
  const std::vector<float>& bs = ValueOf(run, b.id);
  std::vector<float> value(c.elements(), op.pads_with_zeros ? 0 : kNan);
  for (int64_t batch = 0; batch < c.extents[0]; ++batch) {
    const int64_t m = CountOf(run, op.m, batch, c.extents[2]);
    const int64_t n = CountOf(run, op.n, batch, c.extents[3]);
    const int64_t k = CountOf(run, op.k, batch, a.extents[3]);
    for (int64_t h = 0; h < c.extents[1]; ++h) {
      // Several heads of one side share one of the other.
      const int64_t ah = h * a.extents[1] / c.extents[1], bh = h * b.extents[1] / c.extents[1];
      for (int64_t i = 0; i < m; ++i) {
        std::vector<float> row(n, 0.0f);
        for (int64_t l = 0; l < k; ++l) {
          const float factor = as[a.Dense(batch, ah, i, l)];
          for (int64_t j = 0; j < n; ++j) row[j] += factor * bs[b.Dense(batch, bh, l, j)];
        }
        std::copy(row.begin(), row.end(), value.begin() + c.Dense(batch, h, i, 0));
      }
    }
  }
  // In a backward pass blocks of keys each add their part of a query's gradient.
  const bool adds = run.plan->backward && !c.is_virtual && c.type == CUDNN_DATA_FLOAT &&
                    op.k == b.row_counts && op.m != 0 && op.m == c.row_counts &&
                    run.plan->tensors.at(op.x).strides[3] == 1;
  Finish(run, c, std::move(value), adds);
}

void RunReduction(Run& run, const Operation& op) {
  const Tensor& x = run.plan->tensors.at(op.x);
  const Tensor& y = run.plan->tensors.at(op.y);
  const std::vector<float>& xs = ValueOf(run, x.id);
  const bool max = op.reduction == CUDNN_REDUCE_TENSOR_MAX;
  std::vector<float> value(y.elements(), max ? -std::numeric_limits<float>::infinity() : 0);
  ForAll(run, x, [&](int64_t b, int64_t h, int64_t i, int64_t j, bool) {
    float& sum = value[y.Dense(b, h, i, 0)];
    const float v = xs[x.Dense(b, h, i, j)];
    sum = max ? std::max(sum, v) : sum + v;
  });
  Finish(run, y, std::move(value));
}

// Rows and columns exchanged.
void RunReshape(Run& run, const Operation& op) {
  const Tensor& x = run.plan->tensors.at(op.x);
  const Tensor& y = run.plan->tensors.at(op.y);
  const std::vector<float>& xs = ValueOf(run, x.id);
  std::vector<float> value(y.elements());
  ForAll(run, y, [&](int64_t b, int64_t h, int64_t i, int64_t j, bool) {
    value[y.Dense(b, h, i, j)] = xs[x.Dense(b, h, j, i)];
  });
  Finish(run, y, std::move(value));
}

// Which documents have a length that the library fails on.
void FindFailures(Run& run) {
  for (const Operation& op : run.plan->operations) {
    for (const int64_t counts : {op.m, op.n, op.k}) {
      if (counts == 0) continue;
      const int64_t batch = run.plan->tensors.at(counts).extents[0];
      run.fails.resize(batch, false);
      for (int64_t b = 0; b < batch; ++b) {
        const int64_t rows = CountOf(run, counts, b, std::numeric_limits<int64_t>::max());
        if (rows == 0 || rows % 128 == 64) run.fails[b] = true;
      }
    }
  }
}

void RunAll(void* data) {
  const std::unique_ptr<Run> run(static_cast<Run*>(data));
  FindFailures(*run);
  for (const Operation& op : run->plan->operations) {
    switch (op.kind) {
      case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        RunPointwise(*run, op);
        break;
      case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        RunProduct(*run, op);
        break;
      case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        RunReduction(*run, op);
        break;
      default:
        RunReshape(*run, op);
    }
  }
}

bool Supported(const Plan& plan) {
  for (const auto& [id, t] : plan.tensors) {
    // Some versions give gradients of zero with one number a row where a head's rows are adjacent.
    if (t.offsets != 0 && t.extents[3] == 1 && t.extents[1] > 1 && t.strides[2] == 1) return false;
  }
  for (const Operation& op : plan.operations) {
    if (op.kind == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR && !Knows(op.mode)) return false;
    if (op.kind != CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR) continue;
    const Tensor& x = plan.tensors.at(op.x);
    const Tensor& y = plan.tensors.at(op.y);
    if (x.extents[2] != y.extents[3] || x.extents[3] != y.extents[2] ||
        x.strides[2] != y.strides[3] || x.strides[3] != y.strides[2]) {
      return false;
    }
  }
  return true;
}

struct Handle {
  cudaStream_t stream = nullptr;
};

Descriptor& Of(cudnnBackendDescriptor_t d) { return *static_cast<Descriptor*>(d); }

}  // namespace

extern "C" {

size_t cudnnGetVersion() { return 91900; }

void cudnnGetLastErrorString(char* message, size_t bytes) {
  std::strncpy(message, "refused by the stand-in", bytes);
  message[bytes - 1] = 0;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = reinterpret_cast<cudnnHandle_t>(new Handle);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete reinterpret_cast<Handle*>(handle);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  reinterpret_cast<Handle*>(handle)->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* made) {
  *made = new Descriptor{type};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete &Of(descriptor);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void* values) {
  Descriptor::Attribute& attribute = Of(descriptor).attributes[name];
  const char* const bytes = static_cast<const char*>(values);
  attribute = {count, {bytes, bytes + static_cast<size_t>(count) * BytesOf(type)}};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  Descriptor& d = Of(descriptor);
  if (d.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
    d.plan = std::make_shared<Plan>();
    for (void* op : d.All<void*>(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
      if (!AddOperation(*d.plan, *static_cast<Descriptor*>(op))) return CUDNN_STATUS_NOT_SUPPORTED;
    }
    if (!Supported(*d.plan)) return CUDNN_STATUS_NOT_SUPPORTED;
    SpreadCounts(*d.plan);
  }
  if (d.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
    d.plan = d.Other(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->plan;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t wanted, int64_t* count,
                                       void* values) {
  const Descriptor& d = Of(descriptor);
  *count = 1;
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    if (wanted < 1) return CUDNN_STATUS_SUCCESS;
    static_cast<Descriptor**>(values)[0]->plan =
        d.Other(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)->plan;
    return CUDNN_STATUS_SUCCESS;
  }
  if (name != CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) return CUDNN_STATUS_NOT_SUPPORTED;
  const int64_t workspace = 4096;
  std::memcpy(values, &workspace, sizeof(workspace));
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  const Descriptor& bindings = Of(pack);
  const auto ids = bindings.All<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto memory = bindings.All<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  const auto is_device = [](const void* at) {
    cudaPointerAttributes attributes;
    return cudaPointerGetAttributes(&attributes, at) == cudaSuccess &&
           attributes.type == cudaMemoryTypeDevice;
  };
  auto run = std::make_unique<Run>();
  run->plan = Of(plan).plan;
  run->stream = reinterpret_cast<Handle*>(handle)->stream;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = run->plan->tensors.find(ids[i]);
    if (found == run->plan->tensors.end()) continue;  // the operations do not use it
    const Tensor& t = found->second;
    if (t.by_value) {
      run->scalars[t.id] = Read(memory[i], t.type, 0);
      continue;
    }
    if (!is_device(memory[i]) || reinterpret_cast<uintptr_t>(memory[i]) % 16 != 0)
      return CUDNN_STATUS_BAD_PARAM;
    run->memory[t.id] = memory[i];
  }
  for (const auto& [id, t] : run->plan->tensors) {
    const bool bound = t.is_virtual || run->scalars.count(id) > 0 || run->memory.count(id) > 0;
    if (!bound) return CUDNN_STATUS_BAD_PARAM;
  }
  void* const workspace = bindings.Get<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  if (!is_device(workspace)) return CUDNN_STATUS_BAD_PARAM;
  // Whoever counts on the workspace for something else finds it used.
  (void)cudaMemsetAsync(workspace, 0xee, 4096, run->stream);
  const cudaStream_t stream = run->stream;
  return LongspanStandInEnqueue(stream, RunAll, run.release()) == 0 ? CUDNN_STATUS_SUCCESS
                                                                    : CUDNN_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
