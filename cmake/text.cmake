# sg_embed_text(<module> <file> <name>)
#
# Makes a file `const char <name>[]` and `const size_t <name>_len` of the module.
# The same file is the build step: cmake -DNAME=… -DSOURCE=… -DOUTPUT=… -P text.cmake
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${SOURCE} bytes HEX)
  string(LENGTH "${bytes}" digits)
  math(EXPR len "${digits} / 2")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "(char)0x\\1," bytes "${bytes}")
  file(WRITE ${OUTPUT}
    "#include <stddef.h>\n\nextern const char ${NAME}[];\nextern const size_t ${NAME}_len;\n\n"
    "const char ${NAME}[] = {${bytes}0};\nconst size_t ${NAME}_len = ${len};\n")
  return()
endif()

set(SG_TEXT_CMAKE ${CMAKE_CURRENT_LIST_FILE})

function(sg_embed_text module file name)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${file}.c)
  add_custom_command(OUTPUT ${output} VERBATIM
    COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DSOURCE=${CMAKE_SOURCE_DIR}/${file} -DOUTPUT=${output} -P ${SG_TEXT_CMAKE}
    DEPENDS ${file} ${SG_TEXT_CMAKE})
  target_sources(${module} PRIVATE ${output})
endfunction()
