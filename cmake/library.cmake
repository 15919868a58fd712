# One CMake library for each row of the folder table (README of each folder).
#
#   longspan_library(NAME FOLDER folder
#     HEADERS  public headers, relative to the folder
#     PRIVATE_HEADERS  headers that only this library sees
#     SOURCES  ...
#     USES     our libraries whose headers ours include (transitive)
#     LINKS    third-party targets that stay private
#     PUBLIC_LINKS third-party targets that our headers need)
#
# The source tree is never on an include path. Each library has an include root of its own in the build tree, made of
# links to its headers, so a target sees only the headers of the libraries it links: an include that breaks the folder
# table does not compile (tests/build/negative_compile_test.sh proves it).
set(LONGSPAN_WARNINGS -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wcast-qual -Wno-missing-field-initializers)
if(CMAKE_UNITY_BUILD)
  # Locals of one file beside the constants of the next: builds that compile each file alone see what is meant.
  list(REMOVE_ITEM LONGSPAN_WARNINGS -Wshadow)
  # The compiler takes a file that a unit includes for a header.
  list(APPEND LONGSPAN_WARNINGS -Wno-subobject-linkage)
endif()
if(LONGSPAN_WERROR)
  list(APPEND LONGSPAN_WARNINGS -Werror)
endif()
set(LONGSPAN_SANITIZE_FLAGS "")
if(LONGSPAN_SANITIZE)
  set(LONGSPAN_SANITIZE_FLAGS -fsanitize=${LONGSPAN_SANITIZE} -fno-omit-frame-pointer)
endif()

# What every target of ours is compiled with.
add_library(longspan_flags INTERFACE)
target_compile_options(longspan_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${LONGSPAN_WARNINGS}>
  $<$<COMPILE_LANGUAGE:CXX>:${LONGSPAN_SANITIZE_FLAGS}>)
target_link_options(longspan_flags INTERFACE ${LONGSPAN_SANITIZE_FLAGS})

set_property(GLOBAL PROPERTY LONGSPAN_LIBRARIES "")

function(longspan_link_headers root folder)
  foreach(header IN LISTS ARGN)
    set(link "${root}/${folder}/${header}")
    get_filename_component(directory "${link}" DIRECTORY)
    file(MAKE_DIRECTORY "${directory}")
    file(CREATE_LINK "${CMAKE_CURRENT_SOURCE_DIR}/${header}" "${link}" SYMBOLIC)
  endforeach()
endfunction()

function(longspan_library name)
  cmake_parse_arguments(ARG "" "FOLDER" "HEADERS;PRIVATE_HEADERS;SOURCES;USES;LINKS;PUBLIC_LINKS" ${ARGN})
  set(target longspan_${name})
  add_library(${target} STATIC ${ARG_SOURCES})
  add_library(longspan::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})

  set(public_root "${CMAKE_BINARY_DIR}/include/${name}")
  set(private_root "${CMAKE_BINARY_DIR}/include-private/${name}")
  longspan_link_headers("${public_root}" "${ARG_FOLDER}" ${ARG_HEADERS})
  longspan_link_headers("${private_root}" "${ARG_FOLDER}" ${ARG_PRIVATE_HEADERS})
  target_include_directories(${target}
    PUBLIC $<BUILD_INTERFACE:${public_root}> $<INSTALL_INTERFACE:include/longspan>
    PRIVATE ${private_root})
  foreach(used IN LISTS ARG_USES)
    target_link_libraries(${target} PUBLIC longspan_${used})
  endforeach()
  target_link_libraries(${target} PUBLIC absl::status absl::statusor absl::strings ${ARG_PUBLIC_LINKS}
                        PRIVATE ${ARG_LINKS} $<BUILD_INTERFACE:longspan_flags>)
  set_property(GLOBAL APPEND PROPERTY LONGSPAN_LIBRARIES ${target})
  foreach(header IN LISTS ARG_HEADERS)
    get_filename_component(directory "${ARG_FOLDER}/${header}" DIRECTORY)
    install(FILES "${header}" DESTINATION "include/longspan/${directory}")
    set_property(GLOBAL APPEND PROPERTY LONGSPAN_HEADERS "${name}:${ARG_FOLDER}/${header}")
  endforeach()
endfunction()
