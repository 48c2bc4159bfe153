# Writes version.h from version.h.in, at every build because a commit changes no source; the file is touched only when its text
# changes. -DREVISION=... wins over what git says (an image is built from sources without their history).

if(NOT REVISION)
  execute_process(COMMAND git -C ${SOURCE_DIR} describe --always --dirty --exclude=* --abbrev=12
                  OUTPUT_VARIABLE REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
configure_file(${SOURCE_DIR}/server/version.h.in ${OUTPUT} @ONLY)
