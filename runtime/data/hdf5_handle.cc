#include "runtime/data/hdf5_handle.h"

namespace longspan {
namespace {

// HDF5 is one state machine for the whole process, so its lock is too.
std::recursive_mutex& Hdf5Mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

herr_t KeepLast(unsigned /*depth*/, const H5E_error2_t* error, void* out) {
  if (error->desc != nullptr && error->desc[0] != '\0')
    *static_cast<std::string*>(out) = error->desc;
  return 0;
}

}  // namespace

Hdf5Session::Hdf5Session() : lock_(Hdf5Mutex()) {
  H5Eget_auto2(H5E_DEFAULT, &printer_, &printer_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Hdf5Session::~Hdf5Session() { H5Eset_auto2(H5E_DEFAULT, printer_, printer_data_); }

std::string Hdf5Session::Error() const {
  std::string innermost = "unknown HDF5 error";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, KeepLast, &innermost);  // ends at the innermost
  return innermost;
}

Hdf5Handle AccessWithoutLocks() {
  Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.get(), /*use_file_locking=*/false, /*ignore_when_disabled=*/true);
  return access;
}

}  // namespace longspan
