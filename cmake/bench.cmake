# Programs that measure; built on request: cmake --build build --target bench_comm
if(SMGPT_MPI)
  add_executable(bench_comm EXCLUDE_FROM_ALL bench/bench_comm.c)
  target_link_libraries(bench_comm PRIVATE smgpt_comm smgpt_util smgpt_mpi)
endif()
