# The Debian package: `cmake --preset package && cmake --build --preset package && cpack --config build/package/CPackConfig.cmake`
set(from ${CMAKE_SOURCE_DIR}/deploy/debian)
set(made ${CMAKE_BINARY_DIR}/debian)

# Debian wants manual pages and the changelog compressed, without a time in them.
add_custom_command(OUTPUT ${made}/spritegate.conf.5 VERBATIM DEPENDS spritegate
  COMMAND sh -c "$1 help manual >$2" sh $<TARGET_FILE:spritegate> ${made}/spritegate.conf.5)
set(compressed)
foreach(file ${from}/spritegate.1 ${made}/spritegate.conf.5 ${from}/changelog)
  cmake_path(GET file FILENAME name)
  add_custom_command(OUTPUT ${made}/${name}.gz VERBATIM DEPENDS ${file}
    COMMAND sh -c "gzip -9nc $1 >$2" sh ${file} ${made}/${name}.gz)
  list(APPEND compressed ${made}/${name}.gz)
endforeach()
add_custom_target(package-files ALL DEPENDS ${compressed})

install(FILES ${made}/spritegate.1.gz DESTINATION share/man/man1)
install(FILES ${made}/spritegate.conf.5.gz DESTINATION share/man/man5)
install(FILES ${made}/changelog.gz ${from}/copyright DESTINATION share/doc/spritegate)
install(FILES ${CMAKE_SOURCE_DIR}/deploy/spritegate.bash-completion DESTINATION share/bash-completion/completions RENAME spritegate)
install(FILES ${from}/spritegate.service DESTINATION lib/systemd/system)
install(FILES ${from}/sysusers.conf DESTINATION lib/sysusers.d RENAME spritegate.conf)
install(FILES ${from}/datasette.service DESTINATION share/doc/spritegate/examples)
# Until it is configured nobody but root has anything to read in it.
install(FILES ${from}/spritegate.conf DESTINATION /etc/spritegate PERMISSIONS OWNER_READ OWNER_WRITE)

set(CPACK_GENERATOR DEB)
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR})
set(CPACK_PACKAGE_CONTACT "Spritegate authors <spritegate@localhost>")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION httpd)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# WebSockets of libcurl, whose symbols are older.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "ca-certificates, libcurl4t64 (>= 8.14), systemd | systemd-standalone-sysusers | systemd-sysusers")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS redis-server)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${from}/postinst ${from}/prerm ${from}/postrm ${made}/conffiles)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "gateway in front of Datasette for agents' commands
An HTTP reverse proxy that passes traffic to Datasette and runs an AI agent's
commands in Fly Sprites, disposable microVMs, after it has checked the
caller's token and its limits in Redis.")
file(WRITE ${made}/conffiles "/etc/spritegate/spritegate.conf\n")
include(CPack)
