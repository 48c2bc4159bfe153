// Why a grammar is not compiled, and the count that ends compiling. Thrown inside this folder only: its public
// functions give a Result.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace serval::grammar {

class Refusal : public std::runtime_error {
 public:
  // keyword: of the schema, or what of a regular expression or a grammar. `why`: a sentence without a full stop.
  Refusal(std::string keyword, const std::string& why)
      : std::runtime_error(why), keyword_(std::move(keyword)) {}
  const std::string& keyword() const { return keyword_; }

 private:
  std::string keyword_;
};

// Counts what compiling makes, automaton states and edges: bounds its memory and, as each is made in bounded time,
// its time. The same text is refused on every machine.
class Budget {
 public:
  explicit Budget(size_t steps) : left_(steps) {}
  void spend(size_t steps) {
    if (steps > left_) throw Refusal(blamed_, "makes an automaton that is too large");
    left_ -= steps;
  }
  size_t left() const { return left_; }

  // Who is blamed from here on, for the lifetime of the returned guard.
  class Blame {
   public:
    Blame(Budget& budget, std::string keyword) : budget_(budget), before_(std::move(keyword)) {
      std::swap(budget_.blamed_, before_);
    }
    ~Blame() { std::swap(budget_.blamed_, before_); }
    Blame(const Blame&) = delete;
    Blame& operator=(const Blame&) = delete;

   private:
    Budget& budget_;
    std::string before_;
  };
  Blame blame(std::string keyword) { return Blame(*this, std::move(keyword)); }

 private:
  size_t left_;
  std::string blamed_ = "size";
};

}  // namespace serval::grammar
