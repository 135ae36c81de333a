# sg_embed_scripts(<module> <folder>)
#
# Makes every <folder>/*.lua a `const struct script script_<name>` of the module (policy/script.h): its text and its SHA-1. In place of each
# line `-- include shared/<name>.lua` stands the text of that file.
# The same file is the build step: cmake -DNAME=… -DSOURCE=… -DOUTPUT=… -P scripts.cmake
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${SOURCE} text)
  while(text MATCHES "-- include (shared/[a-z]+\\.lua)\n")
    set(line "${CMAKE_MATCH_0}")
    cmake_path(GET SOURCE PARENT_PATH folder)
    file(READ ${folder}/${CMAKE_MATCH_1} shared)
    string(REPLACE "${line}" "${shared}" text "${text}")
  endwhile()
  string(SHA1 sha1 "${text}")
  string(HEX "${text}" bytes)
  string(LENGTH "${bytes}" digits)
  math(EXPR len "${digits} / 2")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
  file(WRITE ${OUTPUT}
    "#include \"policy/script.h\"\n\nstatic const char text[] = {${bytes}0};\n\n"
    "const struct script script_${NAME} = {.text = text, .len = ${len}, .sha1 = \"${sha1}\"};\n")
  return()
endif()

set(SG_SCRIPTS_CMAKE ${CMAKE_CURRENT_LIST_FILE})

function(sg_embed_scripts module folder)
  file(GLOB scripts CONFIGURE_DEPENDS ${folder}/*.lua)
  file(GLOB shared CONFIGURE_DEPENDS ${folder}/shared/*.lua)
  foreach(script ${scripts})
    cmake_path(GET script STEM name)
    set(output ${CMAKE_CURRENT_BINARY_DIR}/${folder}/${name}.c)
    add_custom_command(OUTPUT ${output} VERBATIM
      COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DSOURCE=${CMAKE_SOURCE_DIR}/${folder}/${name}.lua -DOUTPUT=${output}
        -P ${SG_SCRIPTS_CMAKE}
      DEPENDS ${script} ${shared} ${SG_SCRIPTS_CMAKE})
    target_sources(${module} PRIVATE ${output})
  endforeach()
endfunction()
