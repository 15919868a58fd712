#include "runtime/metrics/norm_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/data/hdf5_handle.h"

namespace longspan {
namespace {

constexpr char kUpdates[] = "updates";
constexpr char kSchedule[] = "schedule";
constexpr const char* kFields[] = {"l1",   "l2",   "clip_factor", "non_finite",
                                   "rate", "loss", "tokens",      "adam"};
static_assert(sizeof(NormRecord) == std::size(kFields) * sizeof(double), "a name for each field");

Hdf5Handle RecordType() {
  Hdf5Handle type(H5Tcreate(H5T_COMPOUND, sizeof(NormRecord)), H5Tclose);
  for (size_t i = 0; i < std::size(kFields); ++i)
    H5Tinsert(type.get(), kFields[i], i * sizeof(double), H5T_IEEE_F64LE);
  return type;
}

Hdf5Handle TextType(const std::string& text) {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), std::max<size_t>(1, text.size()));
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

bool WriteAttribute(hid_t object, const char* name, hid_t type, const void* value) {
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(H5Acreate2(object, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose);
  return attribute.ok() && H5Awrite(attribute.get(), type, value) >= 0;
}

// The file with all its rows; *offset is where they begin.
bool Make(const std::string& path, const NormLogContents& contents, int64_t* offset) {
  const Hdf5Handle access = AccessWithoutLocks();
  Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
  if (!file.ok()) return false;

  const Hdf5Handle text_type = TextType(contents.schedule);
  const Hdf5Handle scalar(H5Screate(H5S_SCALAR), H5Sclose);
  Hdf5Handle schedule(H5Dcreate2(file.get(), kSchedule, text_type.get(), scalar.get(), H5P_DEFAULT,
                                 H5P_DEFAULT, H5P_DEFAULT),
                      H5Dclose);
  if (!schedule.ok() || H5Dwrite(schedule.get(), text_type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                                 contents.schedule.c_str()) < 0) {
    return false;
  }

  const Hdf5Handle type = RecordType();
  const hsize_t rows = contents.updates.size();
  const Hdf5Handle space(H5Screate_simple(1, &rows, nullptr), H5Sclose);
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(properties.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY);
  Hdf5Handle updates(H5Dcreate2(file.get(), kUpdates, type.get(), space.get(), H5P_DEFAULT,
                                properties.get(), H5P_DEFAULT),
                     H5Dclose);
  if (!updates.ok() || H5Dwrite(updates.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                                contents.updates.data()) < 0) {
    return false;
  }
  const haddr_t address = H5Dget_offset(updates.get());
  if (address == HADDR_UNDEF) return false;
  *offset = static_cast<int64_t>(address);
  const Hdf5Handle name_type = TextType(contents.optimizer);
  return WriteAttribute(updates.get(), "optimizer", name_type.get(), contents.optimizer.c_str()) &&
         WriteAttribute(updates.get(), "weight_decay", H5T_NATIVE_DOUBLE, &contents.weight_decay) &&
         updates.Close() && schedule.Close() && file.Close();
}

bool ReadText(hid_t type, std::string* text, const auto& read) {
  text->resize(H5Tget_size(type));
  if (H5Tget_class(type) != H5T_STRING || read(text->data()) < 0) return false;
  text->resize(std::strlen(text->c_str()));
  return true;
}

bool Read(hid_t file, NormLogContents* contents) {
  const Hdf5Handle updates(H5Dopen2(file, kUpdates, H5P_DEFAULT), H5Dclose);
  const Hdf5Handle schedule(H5Dopen2(file, kSchedule, H5P_DEFAULT), H5Dclose);
  if (!updates.ok() || !schedule.ok()) return false;
  const Hdf5Handle space(H5Dget_space(updates.get()), H5Sclose);
  hsize_t rows = 0;
  if (H5Sget_simple_extent_ndims(space.get()) != 1 ||
      H5Sget_simple_extent_dims(space.get(), &rows, nullptr) != 1) {
    return false;
  }
  contents->updates.assign(rows, NormRecord());
  const Hdf5Handle type = RecordType();
  if (H5Dread(updates.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, contents->updates.data()) <
      0) {
    return false;
  }
  const Hdf5Handle text_type(H5Dget_type(schedule.get()), H5Tclose);
  const Hdf5Handle optimizer(H5Aopen(updates.get(), "optimizer", H5P_DEFAULT), H5Aclose);
  const Hdf5Handle decay(H5Aopen(updates.get(), "weight_decay", H5P_DEFAULT), H5Aclose);
  if (!optimizer.ok() || !decay.ok()) return false;
  const Hdf5Handle name_type(H5Aget_type(optimizer.get()), H5Tclose);
  return ReadText(text_type.get(), &contents->schedule,
                  [&](char* to) {
                    return H5Dread(schedule.get(), text_type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                                   to);
                  }) &&
         ReadText(name_type.get(), &contents->optimizer,
                  [&](char* to) { return H5Aread(optimizer.get(), name_type.get(), to); }) &&
         H5Aread(decay.get(), H5T_NATIVE_DOUBLE, &contents->weight_decay) >= 0;
}

}  // namespace

int64_t NormLogContents::recorded() const {
  int64_t last = static_cast<int64_t>(updates.size());
  // The rate is there for every update whose turn has come, skipped ones too.
  while (last > 0 && std::isnan(updates[last - 1].rate)) --last;
  return last;
}

std::vector<double> NormLogContents::Norms(GradientNorm norm) const {
  std::vector<double> norms;
  for (int64_t i = 0; i < recorded(); ++i)
    norms.push_back(norm == GradientNorm::kL1 ? updates[i].l1 : updates[i].l2);
  return norms;
}

std::vector<double> NormLogContents::Rates() const {
  std::vector<double> rates;
  for (int64_t i = 0; i < recorded(); ++i) rates.push_back(updates[i].rate);
  return rates;
}

NormLog::NormLog(NormLog&& other) noexcept { *this = std::move(other); }

NormLog& NormLog::operator=(NormLog&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(offset_, other.offset_);
  std::swap(rows_, other.rows_);
  return *this;
}

NormLog::~NormLog() {
  if (file_ >= 0) close(file_);
}

absl::StatusOr<NormLog> NormLog::Create(const std::string& path, const NormLogContents& contents) {
  NormLog log;
  log.path_ = path;
  log.rows_ = static_cast<int64_t>(contents.updates.size());
  const std::string partial = path + ".partial";
  {
    const Hdf5Session session;
    if (!Make(partial, contents, &log.offset_)) {
      return absl::UnavailableError(absl::StrCat(partial, ": cannot write: ", session.Error()));
    }
  }
  log.file_ = open(partial.c_str(), O_WRONLY | O_CLOEXEC);
  if (log.file_ < 0 || std::rename(partial.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat(path, ": cannot write: ", std::strerror(errno)));
  }
  return log;
}

absl::Status NormLog::Write(int64_t update, const NormRecord& record) {
  if (file_ < 0 || update < 0 || update >= rows_) return absl::OkStatus();
  const int64_t size = sizeof(NormRecord);
  if (pwrite(file_, &record, size, offset_ + update * size) == size) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path_, ": cannot write: ", std::strerror(errno)));
}

absl::StatusOr<NormLogContents> ReadNormLog(const std::string& path) {
  if (access(path.c_str(), R_OK) != 0)
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  const Hdf5Session session;
  const Hdf5Handle access_list = AccessWithoutLocks();
  const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access_list.get()), H5Fclose);
  NormLogContents contents;
  if (!file.ok() || !Read(file.get(), &contents)) {
    return absl::DataLossError(
        absl::StrCat(path, ": is not a record of gradient norms: ", session.Error()));
  }
  return contents;
}

}  // namespace longspan
