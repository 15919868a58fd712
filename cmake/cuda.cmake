# Sets LONGSPAN_HAVE_CUDA and LONGSPAN_HAVE_NCCL. The runtime library is linked statically; cuDNN, cuBLASLt and NCCL are
# loaded when they are first needed, so that a program built with CUDA still starts on a machine without a driver or those
# libraries.
#
# nvcc and headers are looked for, in this order: on PATH and in /usr/local/cuda (NVIDIA's installers), /usr/lib/cuda and
# /usr/include (a distribution's packages), and Python's site-packages (PyPI's nvidia-* packages). LONGSPAN_CUDA_ROOT names
# another folder.
set(LONGSPAN_HAVE_CUDA OFF)
set(LONGSPAN_HAVE_NCCL OFF)
set(LONGSPAN_CUDA_ROOT "" CACHE PATH "Where CUDA is, if not in one of the usual places")
set(LONGSPAN_CUDA_PLACES /usr/local/cuda /usr/lib/cuda /usr/lib/nvidia-cuda-toolkit CACHE STRING "The usual places")
mark_as_advanced(LONGSPAN_CUDA_PLACES)
set(LONGSPAN_OLDEST_CUDA 12.8)  # the first that knows compute capability 10.0

# Folders of PyPI's nvidia packages: nvidia/cu13 since CUDA 13, nvidia/{cuda_nvcc,cudnn,nccl} before.
function(longspan_find_pypi_cuda result)
  set(${result} "" PARENT_SCOPE)
  find_program(LONGSPAN_PYTHON python3)
  if(LONGSPAN_PYTHON)
    execute_process(COMMAND "${LONGSPAN_PYTHON}" -c
      "import sys, os; print(';'.join(p for d in sys.path for p in [os.path.join(d, 'nvidia')] if os.path.isdir(p)))"
      OUTPUT_VARIABLE folders OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(found "")
    foreach(folder IN LISTS folders)
      file(GLOB parts LIST_DIRECTORIES true "${folder}/*")
      list(APPEND found ${parts})
    endforeach()
    set(${result} "${found}" PARENT_SCOPE)
  endif()
endfunction()

if(NOT LONGSPAN_CUDA STREQUAL "OFF")
  longspan_find_pypi_cuda(longspan_pypi_cuda)
  set(longspan_cuda_roots ${LONGSPAN_CUDA_ROOT} ${LONGSPAN_CUDA_PLACES} ${longspan_pypi_cuda})
  find_program(LONGSPAN_NVCC nvcc HINTS ${LONGSPAN_CUDA_ROOT} PATHS ${longspan_cuda_roots} PATH_SUFFIXES bin)
  set(longspan_cuda_why "there is no nvcc on PATH, in /usr/local/cuda, in the distribution's packages or in Python's")
  set(longspan_cuda_version "")
  if(LONGSPAN_NVCC)
    execute_process(COMMAND "${LONGSPAN_NVCC}" --version OUTPUT_VARIABLE longspan_nvcc_says ERROR_QUIET)
    if(longspan_nvcc_says MATCHES "release ([0-9]+\\.[0-9]+)")
      set(longspan_cuda_version ${CMAKE_MATCH_1})
    endif()
    # Beside the toolkit, or where the distribution puts it. Headers alone are needed.
    get_filename_component(longspan_nvcc_folder "${LONGSPAN_NVCC}" REALPATH)
    get_filename_component(longspan_nvcc_folder "${longspan_nvcc_folder}" DIRECTORY)
    find_path(LONGSPAN_CUDNN_INCLUDE cudnn.h HINTS "${longspan_nvcc_folder}/.." ${longspan_cuda_roots}
      PATH_SUFFIXES include)
    find_path(LONGSPAN_NCCL_INCLUDE nccl.h HINTS "${longspan_nvcc_folder}/.." ${longspan_cuda_roots}
      PATH_SUFFIXES include)
    if(NOT longspan_cuda_version)
      set(longspan_cuda_why "${LONGSPAN_NVCC} does not tell its version")
    elseif(longspan_cuda_version VERSION_LESS LONGSPAN_OLDEST_CUDA)
      set(longspan_cuda_why
        "CUDA ${longspan_cuda_version} (${LONGSPAN_NVCC}) is too old: ${LONGSPAN_OLDEST_CUDA} is the oldest that is served")
    elseif(NOT LONGSPAN_CUDNN_INCLUDE)
      set(longspan_cuda_why "CUDA ${longspan_cuda_version} is there, but no cudnn.h (cuDNN 9): install it beside ${LONGSPAN_NVCC}")
    else()
      set(longspan_cuda_why "")
    endif()
  endif()
  if(NOT longspan_cuda_why)
    set(CMAKE_CUDA_COMPILER ${LONGSPAN_NVCC})
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80 90a 100)
    endif()
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 17)
    find_package(CUDAToolkit REQUIRED)
    set(LONGSPAN_HAVE_CUDA ON)
    if(LONGSPAN_NCCL_INCLUDE)
      set(LONGSPAN_HAVE_NCCL ON)
    endif()
  elseif(LONGSPAN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LONGSPAN_CUDA=ON, but ${longspan_cuda_why}")
  endif()
endif()
if(LONGSPAN_HAVE_CUDA AND NOT LONGSPAN_HAVE_NCCL)
  message(STATUS "CUDA back end: ON, without NCCL (no nccl.h): ranks speak through pinned memory")
elseif(LONGSPAN_HAVE_CUDA OR LONGSPAN_CUDA STREQUAL "OFF")
  message(STATUS "CUDA back end: ${LONGSPAN_HAVE_CUDA}")
else()
  message(STATUS "CUDA back end: OFF (${longspan_cuda_why})")
endif()
