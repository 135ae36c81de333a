# sg_shim(<module>)
#
# Builds gateway/shim, which runs inside Sprites, and makes it a `const struct shim_image shim_image` of the module
# (sprites/shim_image.h). It is linked statically with musl: a Sprite may have any C library, and it starts in a tenth of the time.
# The same file is the build step: cmake -DSOURCE=… -DOUTPUT=… -P shim.cmake
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${SOURCE} bytes HEX)
  file(SHA256 ${SOURCE} sha256)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  file(WRITE ${OUTPUT}
    "#include \"gateway/sprites/shim_image.h\"\n\nstatic const unsigned char bytes[] = {${bytes}};\n\n"
    "const struct shim_image shim_image = {.bytes = bytes, .len = sizeof bytes, .sha256 = \"${sha256}\"};\n")
  return()
endif()

set(SG_SHIM_CMAKE ${CMAKE_CURRENT_LIST_FILE})
find_program(MUSL_GCC musl-gcc REQUIRED)

function(sg_shim module)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/gateway/shim/*.c)
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/gateway/shim/*.h)
  set(made ${CMAKE_CURRENT_BINARY_DIR}/shim)
  add_custom_command(OUTPUT ${made}/shim VERBATIM
    COMMAND ${MUSL_GCC} -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Os -static -s -fno-asynchronous-unwind-tables
      -I${CMAKE_SOURCE_DIR} -o ${made}/shim ${sources}
    DEPENDS ${sources} ${headers} ${CMAKE_SOURCE_DIR}/gateway/sprites/record.h)
  add_custom_command(OUTPUT ${made}/image.c VERBATIM
    COMMAND ${CMAKE_COMMAND} -DSOURCE=${made}/shim -DOUTPUT=${made}/image.c -P ${SG_SHIM_CMAKE}
    DEPENDS ${made}/shim ${SG_SHIM_CMAKE})
  target_sources(${module} PRIVATE ${made}/image.c)

  # For the tests, with the sanitizers and warnings of everything else.
  if(SPRITEGATE_TESTS)
    add_executable(shim ${sources})
    target_include_directories(shim PRIVATE ${CMAKE_SOURCE_DIR})
    target_compile_definitions(shim PRIVATE _GNU_SOURCE)
    sg_compile_options(shim)
  endif()
endfunction()
