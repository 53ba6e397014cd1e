# find_package(edgecomp) for applications: edgecomp::edgecomp_static and edgecomp::edgecomp_shared (the C interface), and with
# COMPONENTS executorch, edgecomp::executorch and edgecomp::executorch_static (ExecuTorch's operators).
include(CMakePackageConfigHelpers)
set(EDGECOMP_CMAKE_DIR ${EDGECOMP_INSTALL_DIR}/lib/cmake/edgecomp)
install(EXPORT edgecomp-targets NAMESPACE edgecomp:: DESTINATION ${EDGECOMP_CMAKE_DIR})
if(TARGET edgecomp_executorch)
  install(EXPORT edgecomp-executorch-targets NAMESPACE edgecomp:: DESTINATION ${EDGECOMP_CMAKE_DIR})
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/edgecomp-config.cmake.in edgecomp-config.cmake @ONLY)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/edgecomp-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/edgecomp-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/edgecomp-config-version.cmake
  DESTINATION ${EDGECOMP_CMAKE_DIR})
