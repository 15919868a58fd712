# cmake --install: the program, the libraries with their headers (cmake/library.cmake installs those), and a package that
# lets another project say
#   find_package(longspan 0.1 REQUIRED)
#   target_link_libraries(mine PRIVATE longspan::parallel)
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(LONGSPAN_PACKAGE_DIRECTORY ${CMAKE_INSTALL_LIBDIR}/cmake/longspan)

get_property(libraries GLOBAL PROPERTY LONGSPAN_LIBRARIES)
# longspan_hdf5 stands in the link interface of the static libraries that use it.
set_target_properties(longspan_hdf5 PROPERTIES EXPORT_NAME hdf5)
install(TARGETS ${libraries} longspan_hdf5 EXPORT longspanTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT longspanTargets NAMESPACE longspan:: DESTINATION ${LONGSPAN_PACKAGE_DIRECTORY})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/longspan-config.cmake.in
  ${CMAKE_BINARY_DIR}/longspan-config.cmake INSTALL_DESTINATION ${LONGSPAN_PACKAGE_DIRECTORY}
  NO_SET_AND_CHECK_MACRO)
# Before version 1 any minor version may change interfaces.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/longspan-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/longspan-config.cmake ${CMAKE_BINARY_DIR}/longspan-config-version.cmake
        DESTINATION ${LONGSPAN_PACKAGE_DIRECTORY})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

if(TARGET longspan)
  install(TARGETS longspan RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
