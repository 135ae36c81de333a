# sg_revision(<target>)
#
# Gives <target> the header gateway/revision.h: SPRITEGATE_REVISION as it was set, else what git says of the checkout. It is looked up
# with every build and written only when it differs, so a commit compiles again only what includes the header.
# The same file is the build step: cmake -DGIVEN=… -DSOURCE=… -DOUTPUT=… -P revision.cmake
if(CMAKE_SCRIPT_MODE_FILE)
  cmake_minimum_required(VERSION 3.31)
  set(revision "${GIVEN}")
  if(revision STREQUAL "unknown" AND EXISTS "${SOURCE}/.git")
    execute_process(COMMAND git --no-optional-locks -C "${SOURCE}" describe --always --dirty --abbrev=12 "--exclude=*"
      OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(NOT failed)
      set(revision "${found}")
    endif()
  endif()
  file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "#define SPRITEGATE_REVISION \"${revision}\"\n")
  return()
endif()

set(SG_REVISION_CMAKE ${CMAKE_CURRENT_LIST_FILE})

function(sg_revision target)
  set(output ${CMAKE_BINARY_DIR}/gateway/revision.h)
  add_custom_target(revision BYPRODUCTS ${output} VERBATIM
    COMMAND ${CMAKE_COMMAND} -DGIVEN=${SPRITEGATE_REVISION} -DSOURCE=${CMAKE_SOURCE_DIR} -DOUTPUT=${output} -P ${SG_REVISION_CMAKE})
  add_dependencies(${target} revision)
  target_include_directories(${target} PRIVATE ${CMAKE_BINARY_DIR})
endfunction()
