#include "server/grpc_infrastructure.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1/reflection.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace serval {
namespace {

namespace health = grpc::health::v1;
namespace reflection = grpc::reflection::v1;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

// A file and everything it imports, each once, imports first.
void add_with_imports(const FileDescriptor& file, std::set<const FileDescriptor*>& seen, reflection::FileDescriptorResponse& out) {
  if (!seen.insert(&file).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) add_with_imports(*file.dependency(i), seen, out);
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  out.add_file_descriptor_proto(proto.SerializeAsString());
}

void set_not_found(const std::string& what, reflection::ServerReflectionResponse& response) {
  response.mutable_error_response()->set_error_code(static_cast<int>(GrpcCode::kNotFound));
  response.mutable_error_response()->set_error_message("there is no " + what);
}

void set_file(const FileDescriptor* file, const std::string& what, reflection::ServerReflectionResponse& response) {
  if (!file) return set_not_found(what, response);
  std::set<const FileDescriptor*> seen;
  add_with_imports(*file, seen, *response.mutable_file_descriptor_response());
}

reflection::ServerReflectionResponse reflect(const reflection::ServerReflectionRequest& request, const std::vector<std::string>& services) {
  using Request = reflection::ServerReflectionRequest;
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  reflection::ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case Request::kFileByFilename:
      set_file(pool.FindFileByName(request.file_by_filename()), "file " + request.file_by_filename(), response);
      break;
    case Request::kFileContainingSymbol:
      set_file(pool.FindFileContainingSymbol(request.file_containing_symbol()), "symbol " + request.file_containing_symbol(), response);
      break;
    case Request::kFileContainingExtension:  // no message of ours takes extensions
      set_not_found("extension of " + request.file_containing_extension().containing_type(), response);
      break;
    case Request::kAllExtensionNumbersOfType: {
      const std::string& name = request.all_extension_numbers_of_type();
      if (!pool.FindMessageTypeByName(name)) {
        set_not_found("message " + name, response);
      } else {
        response.mutable_all_extension_numbers_response()->set_base_type_name(name);
      }
      break;
    }
    case Request::kListServices:
      for (const std::string& service : services) response.mutable_list_services_response()->add_service()->set_name(service);
      break;
    case Request::MESSAGE_REQUEST_NOT_SET:
      response.mutable_error_response()->set_error_code(static_cast<int>(GrpcCode::kInvalidArgument));
      response.mutable_error_response()->set_error_message("the request asks for nothing");
  }
  return response;
}

}  // namespace

std::string GrpcHealth::answer(const std::string& service) const {
  health::HealthCheckResponse response;
  const bool is_known = service.empty() || services_.contains(service);
  response.set_status(!is_known      ? health::HealthCheckResponse::SERVICE_UNKNOWN
                      : is_serving_ ? health::HealthCheckResponse::SERVING
                                    : health::HealthCheckResponse::NOT_SERVING);
  return response.SerializeAsString();
}

void GrpcHealth::set_serving(bool is_serving) {
  std::lock_guard lock(mutex_);
  if (std::exchange(is_serving_, is_serving) == is_serving) return;
  std::erase_if(watchers_, [&](const auto& watcher) {
    const std::shared_ptr<GrpcCall> call = watcher.second.lock();
    if (call) call->send(answer(watcher.first));
    return !call;
  });
}

std::vector<GrpcMethod> GrpcHealth::methods() {
  const std::string name = "/grpc.health.v1.Health/";
  return {
      {.path = name + "Check",
       .needs_key = false,
       .run =
           [this](const std::shared_ptr<GrpcCall>& call, const std::string& message) {
             health::HealthCheckRequest request;
             if (!request.ParseFromString(message)) return call->finish(to_grpc_status(malformed_message()));
             if (!request.service().empty() && !services_.contains(request.service()))
               return call->finish({GrpcCode::kNotFound, "There is no service of that name here; reflection lists them.", {}});
             std::lock_guard lock(mutex_);
             call->send(answer(request.service()));
             call->finish({});
           }},
      {.path = name + "Watch",
       .needs_key = false,
       .run =
           [this](const std::shared_ptr<GrpcCall>& call, const std::string& message) {
             health::HealthCheckRequest request;
             if (!request.ParseFromString(message)) return call->finish(to_grpc_status(malformed_message()));
             std::lock_guard lock(mutex_);
             std::erase_if(watchers_, [](const auto& watcher) { return watcher.second.expired(); });
             call->send(answer(request.service()));
             watchers_.emplace_back(request.service(), call);
           }},
  };
}

std::vector<GrpcMethod> reflection_methods(std::vector<std::string> services) {
  std::vector<GrpcMethod> methods;
  for (const auto* message : {reflection::ServerReflectionRequest::descriptor(), grpc::reflection::v1alpha::ServerReflectionRequest::descriptor()}) {
    methods.push_back({.path = "/" + message->file()->package() + ".ServerReflection/ServerReflectionInfo",
                       .needs_key = false,
                       .takes_many = true,
                       .run = [services](const std::shared_ptr<GrpcCall>& call, const std::string& message) {
                         reflection::ServerReflectionRequest request;  // v1alpha's messages have the same fields
                         if (!request.ParseFromString(message)) return call->finish(to_grpc_status(malformed_message()));
                         call->send(reflect(request, services).SerializeAsString());
                       }});
  }
  return methods;
}

}  // namespace serval
