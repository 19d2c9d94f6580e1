# Programs that measure; built on request: cmake --build build --target bench_comm
if(SMGPT_MPI)
  add_executable(bench_comm EXCLUDE_FROM_ALL bench/bench_comm.c)
  target_link_libraries(bench_comm PRIVATE smgpt_comm smgpt_util smgpt_mpi)
endif()
# It times the saver itself, which no public header shows.
add_executable(bench_save EXCLUDE_FROM_ALL bench/bench_save.c)
target_link_libraries(bench_save PRIVATE smgpt_cli smgpt_train)
target_include_directories(bench_save PRIVATE ${PROJECT_SOURCE_DIR}/src/cli ${PROJECT_SOURCE_DIR}/src/train)
