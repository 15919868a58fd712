#include "recorded_file.h"

#include <hdf5.h>

#include <cstdio>
#include <cstdlib>

namespace longspan {
namespace {

hid_t Must(hid_t id, const std::string& what) {
  if (id < 0) {
    std::fprintf(stderr, "cannot read %s\n", what.c_str());
    std::abort();
  }
  return id;
}

}  // namespace

RecordedFile::RecordedFile(const std::string& path)
    : path_(path), file_(Must(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), path)) {}

RecordedFile::~RecordedFile() { H5Fclose(file_); }

double RecordedFile::Number(const std::string& attribute) const {
  const hid_t id =
      Must(H5Aopen(file_, attribute.c_str(), H5P_DEFAULT), path_ + " attribute " + attribute);
  double value = 0;
  Must(H5Aread(id, H5T_NATIVE_DOUBLE, &value), attribute);
  H5Aclose(id);
  return value;
}

std::string RecordedFile::Text(const std::string& attribute) const {
  const hid_t id =
      Must(H5Aopen(file_, attribute.c_str(), H5P_DEFAULT), path_ + " attribute " + attribute);
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  char* text = nullptr;
  Must(H5Aread(id, type, &text), attribute);
  std::string result = text;
  H5free_memory(text);
  H5Tclose(type);
  H5Aclose(id);
  return result;
}

std::vector<double> RecordedFile::Values(const std::string& name) const {
  const hid_t id = Must(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), path_ + " data set " + name);
  const hid_t space = H5Dget_space(id);
  std::vector<double> values(static_cast<size_t>(H5Sget_simple_extent_npoints(space)));
  Must(H5Dread(id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), name);
  H5Sclose(space);
  H5Dclose(id);
  return values;
}

}  // namespace longspan
