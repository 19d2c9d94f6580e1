# The vector loops (src/ops/cpu/kernels) are compiled once for each instruction set: the room itself holds the
# baseline copy, the object libraries below the others. Which one runs is decided when the device is opened.
file(GLOB kernel_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/ops/cpu/kernels/*.c)
# Vectors are passed between inlined functions only, so the calling convention does not matter.
set_source_files_properties(${kernel_sources} PROPERTIES COMPILE_OPTIONS "-Wno-psabi")

function(smgpt_kernels isa)
  add_library(smgpt_ops_${isa} OBJECT ${kernel_sources})
  target_include_directories(smgpt_ops_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/include)
  target_compile_definitions(smgpt_ops_${isa} PRIVATE OPS_ISA=${isa})
  target_compile_options(smgpt_ops_${isa} PRIVATE ${ARGN})
  target_sources(smgpt_ops PRIVATE $<TARGET_OBJECTS:smgpt_ops_${isa}>)
endfunction()

if(TARGET smgpt_ops AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  smgpt_kernels(avx2 -mavx2 -mfma)
  smgpt_kernels(avx512 -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
  target_compile_definitions(smgpt_ops PRIVATE SMGPT_X86)

  # Products of packed bfloat16 (src/ops/cpu/tiles): the files with the kernels and the packing are compiled for the
  # processors that have them; tiles.c, which asks, is not.
  set(tiles ${PROJECT_SOURCE_DIR}/src/ops/cpu/tiles)
  set(tile_options -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16)
  set_source_files_properties(${tiles}/pack.c ${tiles}/scores.c ${tiles}/gated.c ${tiles}/dpbf16.c
                              PROPERTIES COMPILE_OPTIONS "${tile_options}")
  set_source_files_properties(${tiles}/amx.c PROPERTIES COMPILE_OPTIONS "${tile_options};-mamx-tile;-mamx-bf16")
endif()

add_executable(bench_ops EXCLUDE_FROM_ALL bench/bench_ops.c)
target_link_libraries(bench_ops PRIVATE smgpt_ops smgpt_util m)
