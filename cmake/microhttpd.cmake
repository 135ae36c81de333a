# microhttpd: Debian's libmicrohttpd.a, except that it does not clear a connection's whole memory pool after each request, that the
# pools of closed connections are kept for new ones, and that suspended connections stay in its epoll set.
# Measurements and reasons: docs/decisions/0004-libmicrohttpd-pool.md
find_library(MICROHTTPD_ARCHIVE libmicrohttpd.a REQUIRED)
# gateway/http/answer.c calls a function of its inside, whose arguments another version may have changed.
if(NOT MHD_VERSION MATCHES "^1\\.0\\.")
  message(FATAL_ERROR "libmicrohttpd ${MHD_VERSION}: 1.0 is needed")
endif()
pkg_check_modules(GNUTLS REQUIRED IMPORTED_TARGET gnutls)

set(lean ${CMAKE_BINARY_DIR}/libmicrohttpd_lean.a)
add_custom_command(OUTPUT ${lean}
  COMMAND ${CMAKE_OBJCOPY} --redefine-sym memset=microhttpd_memset --redefine-sym mmap=microhttpd_mmap
          --redefine-sym munmap=microhttpd_munmap --redefine-sym epoll_ctl=microhttpd_epoll_ctl
          --redefine-sym epoll_wait=microhttpd_epoll_wait --redefine-sym recv=microhttpd_recv ${MICROHTTPD_ARCHIVE} ${lean}
  DEPENDS ${MICROHTTPD_ARCHIVE} VERBATIM)
add_custom_target(microhttpd_lean DEPENDS ${lean})

# The functions are in connection_memory.c and connection_events.c of gateway/http, which nothing that is linked before the archive
# asks for.
add_library(microhttpd INTERFACE)
add_dependencies(microhttpd microhttpd_lean)
target_include_directories(microhttpd SYSTEM INTERFACE ${MHD_INCLUDE_DIRS})
target_link_libraries(microhttpd INTERFACE ${lean} PkgConfig::GNUTLS)
target_link_options(microhttpd INTERFACE LINKER:--undefined=microhttpd_memset LINKER:--undefined=microhttpd_recv)

# Its own pages for what it refuses become problems, in gateway/http/refusal.c.
target_link_options(microhttpd INTERFACE LINKER:--wrap=MHD_create_response_from_buffer_static
  LINKER:--undefined=__wrap_MHD_create_response_from_buffer_static)

# Chunk extensions are skipped in gateway/http/chunk_line.c when it reads a chunk's size.
target_link_options(microhttpd INTERFACE LINKER:--wrap=MHD_strx_to_uint64_n_ LINKER:--undefined=__wrap_MHD_strx_to_uint64_n_)
