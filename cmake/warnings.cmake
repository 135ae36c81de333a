# One set of warnings, sanitizer and hardening flags for every target.
function(sg_compile_options target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla -Wundef
    -Wpointer-arith -Wwrite-strings -Wcast-qual -Wformat=2 -Wimplicit-fallthrough -Wnull-dereference
    -Wconversion -Wno-sign-conversion -fno-common -fno-strict-aliasing)
  if(SPRITEGATE_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(SPRITEGATE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${SPRITEGATE_SANITIZE} -fno-omit-frame-pointer)
    target_compile_definitions(${target} PRIVATE SPRITEGATE_SANITIZED)
    target_link_options(${target} PRIVATE -fsanitize=${SPRITEGATE_SANITIZE})
  endif()
  if(SPRITEGATE_HARDEN)
    target_compile_options(${target} PRIVATE -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection
      -fcf-protection=full -ftrivial-auto-var-init=zero -fPIE)
    target_link_options(${target} PRIVATE -pie -Wl,-z,relro,-z,now,-z,noexecstack)
  endif()
endfunction()
