#include "engine/model/json_file.h"

#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/base/regular_file.h"

namespace serval {
namespace {

// Hands out heap memory up to a limit; "[[],[],..." costs the tree ten times its text.
class BoundedResource final : public boost::json::memory_resource {
 public:
  explicit BoundedResource(size_t limit) : left_(limit) {}

 private:
  // Nothing in a tree wants more than operator new's own alignment, and Boost 1.81 does not always name the
  // same one again when it gives memory back; its default resource ignores the argument too.
  void* do_allocate(size_t bytes, size_t) override {
    if (bytes > left_) throw std::bad_alloc();
    void* memory = ::operator new(bytes);
    left_ -= bytes;
    return memory;
  }
  void do_deallocate(void* memory, size_t bytes, size_t) override {
    left_ += bytes;
    ::operator delete(memory);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  size_t left_;
};

}  // namespace

boost::json::object read_json_object(const std::filesystem::path& path, size_t max_bytes) {
  const std::string text = read_regular_file(path, max_bytes);
  try {
    boost::system::error_code error;
    const size_t limit = 4 * text.size() + (size_t{32} << 20);
    boost::json::value value =
        boost::json::parse(text, error, boost::json::make_shared_resource<BoundedResource>(limit));
    if (error) throw std::runtime_error(path.string() + " is not valid JSON: " + error.message());
    if (!value.is_object()) throw std::runtime_error(path.string() + " must hold a JSON object");
    return std::move(value.as_object());
  } catch (const std::bad_alloc&) {
    throw std::runtime_error(path.string() + " holds a structure out of proportion to its size");
  }
}

}  // namespace serval
