# Options, language standard, warnings, sanitizers, linker and compiler cache.
option(MILLRACE_BUILD_TESTS "Build the tests" ON)
option(MILLRACE_BUILD_FUZZERS "Build the libFuzzer targets (clang only)" OFF)
set(MILLRACE_CUDA "AUTO" CACHE STRING "CUDA backend: AUTO (where nvcc is found), ON (fail without it), OFF")
set_property(CACHE MILLRACE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(MILLRACE_CUDA_ARCHITECTURES "90" CACHE STRING "CUDA architectures, e.g. 90 or 75;80;86;89;90;100;120")
set(MILLRACE_SANITIZE "" CACHE STRING "address, undefined or thread")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

# Release keeps line tables for stack traces; assertions of the standard library stay off.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")

find_program(MILLRACE_CCACHE ccache)
if(MILLRACE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${MILLRACE_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MILLRACE_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${MILLRACE_CCACHE})
endif()
find_program(MILLRACE_MOLD mold)
find_program(MILLRACE_LLD ld.lld)
if(MILLRACE_MOLD)
  add_link_options(-fuse-ld=mold)
elseif(MILLRACE_LLD)
  add_link_options(-fuse-ld=lld)
endif()

# Warnings are errors in our own code; generated and system headers are included as SYSTEM.
set(MILLRACE_WARNINGS -Wall -Wextra -Werror -Wno-unused-parameter -Wnon-virtual-dtor
    -Woverloaded-virtual -Wshadow=local)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(MILLRACE_WARNINGS -Wall -Wextra -Werror -Wno-unused-parameter -Wnon-virtual-dtor
      -Woverloaded-virtual -Wthread-safety)
endif()

if(MILLRACE_SANITIZE)
  if(NOT MILLRACE_SANITIZE MATCHES "^(address|undefined|thread)$")
    message(FATAL_ERROR "MILLRACE_SANITIZE is '${MILLRACE_SANITIZE}': use address, undefined or thread")
  endif()
  add_compile_options(-fsanitize=${MILLRACE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${MILLRACE_SANITIZE})
  # GCC 12 sees uninitialised values in libstdc++'s <regex> once sanitizers change its inlining.
  list(APPEND MILLRACE_WARNINGS -Wno-maybe-uninitialized)
  if(MILLRACE_SANITIZE STREQUAL "undefined")
    add_compile_options(-fno-sanitize-recover=all)
  endif()
endif()
