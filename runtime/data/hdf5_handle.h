// Hdf5Handle: owns one HDF5 identifier; and how this folder calls HDF5. Move-only. Private to this
// folder.
#ifndef LONGSPAN_RUNTIME_DATA_HDF5_HANDLE_H_
#define LONGSPAN_RUNTIME_DATA_HDF5_HANDLE_H_

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

namespace longspan {

class Hdf5Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, Closer close) : id_(id), close_(close) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }
  // Closes now and says whether that worked: for files that were written.
  bool Close() { return close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_ = -1;
  Closer close_ = nullptr;
};

// One caller of HDF5 at a time, for libraries built without thread safety, and without the
// library's own printing of errors: hold one while calling it and while Hdf5Handles die.
class Hdf5Session {
 public:
  Hdf5Session();
  ~Hdf5Session();
  Hdf5Session(const Hdf5Session&) = delete;
  Hdf5Session& operator=(const Hdf5Session&) = delete;
  // What HDF5 says of the call that failed last.
  std::string Error() const;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t printer_ = nullptr;
  void* printer_data_ = nullptr;
};

// A file access list without file locks, which some cluster file systems refuse: files that are
// read are complete, and those that are written have names of their own. Within a session.
Hdf5Handle AccessWithoutLocks();

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_HDF5_HANDLE_H_
