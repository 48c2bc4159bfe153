// What may be left unasked of a configuration. Private to engine/model.
#pragma once

#include "engine/json/fields.h"

namespace serval {

// To be called when an object of config.json has been asked for all that the reader knows: refuses, by name,
// what it has beside that, for it may change the output. Passed over are fields that are about training,
// sampling, files or other programs; those that switch something on while they are off (null, false, empty);
// and those that scale or count while their number is the neutral one.
void refuse_unasked(const Fields& fields);

}  // namespace serval
